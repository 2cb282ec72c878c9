"""Why an image must not be published."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from slurm_testbed.engine import LABEL
from slurm_testbed.errors import PublishError
from slurm_testbed.images import bootstrap_base

#: Label of a base that was made on somebody's machine, inherited by what stands on it.
BOOTSTRAPPED = f"{LABEL}.base"
BASE_NAME = "org.opencontainers.image.base.name"
REVISION = "org.opencontainers.image.revision"
SOURCE = f"{LABEL}.source"


def why_unpublishable(labels: Mapping[str, str]) -> list[str]:
    """Why an image must not be published; empty where it may.

    Args:
        labels: the image's.

    Example:
        >>> why_unpublishable({"org.slurm-testbed.interface": "1", "org.slurm-testbed.base": "trixie"})
        ['it stands on a base that was bootstrapped on a machine, of which no registry has a digest']
        >>> why_unpublishable({})
        ['it is not an image of Slurm Testbed: it has no label org.slurm-testbed.interface']
    """
    found = []
    if f"{LABEL}.interface" not in labels:
        found.append(f"it is not an image of Slurm Testbed: it has no label {LABEL}.interface")
    # An image from scratch inherits no label, and what was compiled into it comes from the base all the same.
    repository = bootstrap_base().rpartition(":")[0]
    if BOOTSTRAPPED in labels or labels.get(BASE_NAME, "").rpartition(":")[0] == repository:
        found.append("it stands on a base that was bootstrapped on a machine, of which no registry has a digest")
    if labels.get(REVISION, "").endswith("-dirty"):
        found.append("it was built from files that are not committed")
    return found


def why_not_its_source(image: Mapping[str, str], source: Mapping[str, str]) -> str:
    """Why a source is not that of an image, by the labels of both; empty where it is.

    Args:
        image: labels of the image.
        source: labels of the image with the source.

    Example:
        >>> why_not_its_source({"org.slurm-testbed.source": "mine.tgz"}, {"org.slurm-testbed.source": "releases.yaml"})
        'its org.slurm-testbed.source is mine.tgz, and that of the source releases.yaml'
    """
    for name in (SOURCE, REVISION):
        if image.get(name) != source.get(name):
            return f"its {name} is {image.get(name)}, and that of the source {source.get(name)}"
    return ""


def is_of_this_machine(host: str) -> bool:
    """Whether a registry is one of this machine alone.

    Args:
        host: its name, perhaps with a port.

    Example:
        >>> is_of_this_machine("127.0.0.1:5000"), is_of_this_machine("localhost.example.org")
        (True, False)
    """
    name = host.rpartition(":")[0] if ":" in host else host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def refuse_unpublishable(name: str, labels: Mapping[str, str]) -> None:
    """Raise where an image must not be published.

    Args:
        name: the image.
        labels: its labels.

    Raises:
        PublishError: with every reason.
    """
    if reasons := why_unpublishable(labels):
        raise PublishError(
            f"{name} must not be published: {'; '.join(reasons)}",
            hint="build it from committed files on a base of a registry: invoke build --base debian:trixie-slim",
        )
