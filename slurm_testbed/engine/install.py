"""Install the engine from the distribution's own packages."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from slurm_testbed.engine.apt import apt_get, known_packages, no_service_starts
from slurm_testbed.engine.connection import what_to_do
from slurm_testbed.engine.machine import Machine
from slurm_testbed.engine.packages import (
    BOOTSTRAP,
    DEBIAN_ENOUGH,
    DEBIAN_OLDEST,
    PACKAGES,
    WHERE_KNOWN,
    version_of,
)
from slurm_testbed.engine.sources import sources_of_newer_release
from slurm_testbed.errors import EngineNotFoundError, PackagesError


def install(machine: Machine, interactive: bool | None) -> None:
    """Install the engine from the distribution's own packages, after asking on a terminal."""
    release = machine.os_release()
    distribution = release.get("ID", "")
    if distribution not in PACKAGES:
        raise EngineNotFoundError(what_to_do(machine, {}))
    version = version_of(release)
    if distribution == "debian" and version < DEBIAN_OLDEST:
        raise EngineNotFoundError(
            f"Debian {version} has no container engine that is new enough: install Docker Engine with buildx "
            f"and compose from elsewhere, or use Debian {DEBIAN_OLDEST} or newer"
        )
    wanted = [*PACKAGES[distribution], BOOTSTRAP]
    if interactive is None:
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
    text = f"no container engine here; installing {', '.join(wanted)} from the packages of {release.get('NAME')}"
    if not interactive:
        machine.say(f"{text} (SLURM_TESTBED_INSTALL_ENGINE=0 forbids it)")
    elif not machine.ask(f"{text}: go on?"):
        raise EngineNotFoundError(what_to_do(machine, {}))
    try:
        apt_get(machine, "update")
        if distribution == "debian" and version < DEBIAN_ENOUGH[0]:
            with sources_of_newer_release(machine, release["VERSION_CODENAME"], [*wanted[:-1], "containerd"]):
                apt_get(machine, "update")
                _install_packages(machine, wanted)
        else:
            _install_packages(machine, wanted)
    except PackagesError as error:
        raise EngineNotFoundError(
            f"no container engine could be installed: {error.message}",
            hint=f"{error.hint}, or install Docker Engine with buildx and compose yourself",
        ) from error


def _install_packages(machine: Machine, wanted: Sequence[str]) -> None:
    known = known_packages(machine, wanted)
    if missing := [name for name in wanted if name not in known and name not in WHERE_KNOWN]:
        raise EngineNotFoundError(
            f"apt knows no package {', '.join(missing)}: enable the component that has it (on Ubuntu: "
            "universe), or install Docker Engine with buildx and compose from elsewhere"
        )
    with no_service_starts(machine):
        apt_get(machine, "install", "--yes", "--no-install-recommends", *(n for n in wanted if n in known))
    machine.say("the container engine is installed")
