"""Which packages of a distribution hold the engine."""

from __future__ import annotations

from collections.abc import Mapping

PACKAGES = {
    "debian": ("docker.io", "docker-cli", "docker-buildx", "docker-compose"),
    "ubuntu": ("docker.io", "docker-cli", "docker-buildx", "docker-compose-v2"),
}
#: Packages of their own in some releases only; elsewhere another package holds what they hold.
WHERE_KNOWN = {"docker-cli"}
#: Bootstraps a base image where no registry answers.
BOOTSTRAP = "mmdebstrap"
#: The oldest Debian whose own engine is new enough, and its name.
DEBIAN_ENOUGH = (13, "trixie")
#: The oldest Debian whose C library can run that one's engine.
DEBIAN_OLDEST = 12


def version_of(release: Mapping[str, str]) -> int:
    """The first number of a distribution's version."""
    return int(release.get("VERSION_ID", "").split(".")[0] or 999)  # testing and unstable have none
