"""What the images are called, and whether they are here."""

from __future__ import annotations

import os

import docker
import docker.errors

from slurm_testbed.releases import Release

REPOSITORY = "slurm-testbed"
#: Debian's suite in every image.
SUITE = "trixie"
#: What published tags of a release have that SchedMD supports no longer: nobody gets it by asking for a version.
END_OF_LIFE = "-eol"
#: Images of which an image for Apptainer can be made.
WITH_SIF = frozenset({"viz-app", "viz-app-xfce"})
#: The targets without a release: their tag is their Debian.
WITHOUT_RELEASE = frozenset({"base"}) | WITH_SIF


def image_name(target: str, release: Release | str = "", repository: str | None = None) -> str:
    """The full name of an image.

    Args:
        target: an image of the bake file.
        release: the release, or its version; nothing is lost without it where the image has none.
        repository: what stands before the image; by default REPOSITORY of the environment, else
            `slurm-testbed`.

    Example:
        >>> image_name("slurm-client", "24.11.5", "example.org/hpc")
        'example.org/hpc/slurm-client:24.11.5'
    """
    prefix = repository or os.environ.get("REPOSITORY") or REPOSITORY
    return f"{prefix}/{target}:{SUITE if target in WITHOUT_RELEASE else release}"


def exists(client: docker.DockerClient, name: str) -> bool:
    """Whether the engine has an image.

    Args:
        client: the engine.
        name: the image's name.

    Example:
        >>> from slurm_testbed import engine
        >>> exists(engine.connect(), "slurm-testbed/none:0")
        False
    """
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True
