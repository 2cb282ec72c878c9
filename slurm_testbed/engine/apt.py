"""Run apt: in an environment that never asks, and without services that start by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from slurm_testbed.engine.machine import Machine
from slurm_testbed.errors import PackagesError, tail


def known_packages(machine: Machine, names: Sequence[str]) -> set[str]:
    """Those packages that apt could install."""
    known, name = set(), ""
    for line in machine.run(["apt-cache", "policy", *names], apt_environment(machine)).stdout.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif "Candidate:" in line and "(none)" not in line:
            known.add(name)
    return known


def apt_environment(machine: Machine) -> dict[str, str]:
    """The environment in which apt finds its programs, speaks English and asks nothing."""
    return {
        **machine.environ,
        "PATH": machine.path,
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_SUSPEND": "1",
        "LC_ALL": "C",
    }


def apt_get(machine: Machine, *arguments: str) -> None:
    """Run apt-get.

    Raises:
        PackagesError: with the end of what it said.
    """
    argv = ["apt-get", "--quiet", "--option", "DPkg::Lock::Timeout=300", *arguments]
    done = machine.run(argv, apt_environment(machine))
    if done.returncode:
        said = tail(done.stderr.strip() or done.stdout, 5)
        raise PackagesError(f"`apt-get {arguments[0]}` failed: {said}", hint="put apt right")


@contextlib.contextmanager
def no_service_starts(machine: Machine) -> Iterator[None]:
    """Keep the packages' scripts from starting a dockerd of their own; systemd's is the one we want."""
    policy = machine.root / "usr/sbin/policy-rc.d"
    if machine.has_systemd or policy.exists():
        yield
        return
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)
