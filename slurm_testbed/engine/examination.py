"""Say what the engine is and has, and what each lack costs."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import docker

from slurm_testbed.engine.connection import environment
from slurm_testbed.engine.machine import THIS, Machine
from slurm_testbed.engine.processes import running_dockerd
from slurm_testbed.engine.registry import registry_answers


@dataclass(frozen=True)
class Finding:
    """One thing about the engine.

    Attributes:
        name: what was looked at.
        value: what was found, in words.
        ok: whether nothing is lost by it.
        cost: what the lack costs; empty when there is none.
    """

    name: str
    value: str
    ok: bool = True
    cost: str = ""


_CAPABILITIES = {19: "SYS_PTRACE", 21: "SYS_ADMIN", 23: "SYS_NICE", 24: "SYS_RESOURCE"}
_CAPABILITY_COSTS = {
    "SYS_PTRACE": "no memory of jobs in sstat and sacct (MaxRSS)",
    "SYS_ADMIN": "no cgroup enforcement and no Apptainer",
    "SYS_NICE": "no task affinity under cgroup v2",
    "SYS_RESOURCE": "`--ulimit` above the current limits fails; older engines refuse `--privileged`",
}
_FAST_STORAGE = {"overlay2", "overlay", "overlayfs", "fuse-overlayfs", "btrfs", "zfs"}
_ELSEWHERE = "unknown, the engine runs on another machine"
_GIB = 1024**3


def examine(client: docker.DockerClient, *, machine: Machine = THIS) -> list[Finding]:
    """Say what the engine is and has, and what each lack costs.

    Args:
        client: the engine.
        machine: where the command line and the devices are looked for.

    Example:
        >>> from slurm_testbed.engine import connect
        >>> [finding.name for finding in examine(connect())][0]
        'engine'
    """
    info = client.info()
    here = _is_here(info)
    return [
        _engine_finding(client),
        _buildx_finding(machine),
        _compose_finding(machine),
        _cgroup_finding(info),
        _storage_finding(info),
        _capability_finding(machine, here),
        _device_finding(machine, here, "FUSE", "dev/fuse", "Apptainer unpacks an image, about 15 s, before it runs"),
        _device_finding(machine, here, "KVM", "dev/kvm", "tests in virtual machines run 20 to 30 times slower"),
        _registry_finding(client),
        _amount("CPUs", int(info.get("NCPU", 0)), 2, "", "starts take longer; run the tests with -n 1"),
        _amount(
            "memory",
            info.get("MemTotal", 0) / _GIB,
            4,
            " GiB",
            "clusters with accounting may be killed in parallel tests",
        ),
    ]


def _is_here(info: Mapping[str, object]) -> bool:
    """Whether the engine shares this machine's kernel, so that what we see is what it sees."""
    return info.get("KernelVersion") == os.uname().release and info.get("Name") == socket.gethostname()


def _version_of(text: str) -> tuple[int, ...]:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def _engine_finding(client: docker.DockerClient) -> Finding:
    about = client.version()
    names = [part.get("Name", "") for part in about.get("Components", [])]
    kind = "Podman" if any("podman" in name.lower() for name in names) else "Docker Engine"
    api = str(about.get("ApiVersion", ""))
    # start_interval of health checks came with API 1.44.
    recent = _version_of(api) >= (1, 44)
    value = f"{kind} {about.get('Version')} (API {api}, {about.get('Os')}/{about.get('Arch')})"
    cost = "a stack is seen as ready up to 5 s late: no start_interval for health checks"
    return Finding("engine", value, recent, "" if recent else cost)


def _cli(machine: Machine, *arguments: str) -> str:
    """What a docker command printed; empty when it, or docker itself, is missing."""
    if not (program := machine.which("docker")):
        return ""
    done = machine.run([program, *arguments], environment(machine=machine))
    return done.stdout.strip() if done.returncode == 0 else ""


def _buildx_finding(machine: Machine) -> Finding:
    version = _version_of(_cli(machine, "buildx", "version"))
    kit = re.search(r"^BuildKit(?: version)?:\s+(\S+)", _cli(machine, "buildx", "inspect"), re.MULTILINE)
    value = f"buildx {'.'.join(map(str, version)) or 'missing'}, BuildKit {kit[1] if kit else 'missing'}"
    ok = version >= (0, 13) and bool(kit)
    return Finding("BuildKit", value, ok, "" if ok else "images cannot be built: install docker-buildx 0.13 or newer")


def _compose_finding(machine: Machine) -> Finding:
    version = _version_of(_cli(machine, "compose", "version", "--short"))
    ok = version >= (2, 24)
    cost = "clusters of several containers cannot be started: install docker-compose 2.24 or newer"
    return Finding("compose", ".".join(map(str, version)) or "missing", ok, "" if ok else cost)


def _cgroup_finding(info: Mapping[str, object]) -> Finding:
    version, driver = info.get("CgroupVersion") or "unknown", info.get("CgroupDriver") or "unknown"
    costs = {"2": "", "1": "what only cgroup v2 has is not checkable here"}
    cost = costs.get(str(version), "jobs run without limits of memory, cores and devices")
    return Finding("cgroup", f"v{version}, driver {driver}".replace("vunknown", "unknown"), not cost, cost)


def _storage_finding(info: Mapping[str, object]) -> Finding:
    driver = str(info.get("Driver"))
    ok = driver in _FAST_STORAGE
    cost = "each container copies its whole image: seconds at every start, and the disk fills"
    return Finding("storage", driver, ok, "" if ok else cost)


def _capability_finding(machine: Machine, here: bool) -> Finding:
    name = "capabilities"
    if not here:
        return Finding(name, _ELSEWHERE, False, "tests that need one say so when they run")
    # A container gets at most what its engine has; of an engine that we cannot see, we share the bounds.
    status = Path(f"/proc/{running_dockerd(machine) or 'self'}/status")
    missing = _missing_capabilities(status.read_text())
    value = f"without {', '.join(missing)}" if missing else f"{', '.join(_CAPABILITIES.values())} can be given"
    return Finding(name, value, not missing, "; ".join(_CAPABILITY_COSTS[capability] for capability in missing))


def _missing_capabilities(status: str) -> list[str]:
    """Which of the capabilities that we look for are not in a process's bounding set (/proc/PID/status)."""
    bounds = re.search(r"^CapBnd:\s+(\w+)", status, re.MULTILINE)
    mask = int(bounds[1], 16) if bounds else 0
    return [capability for bit, capability in _CAPABILITIES.items() if not mask >> bit & 1]


def _device_finding(machine: Machine, here: bool, name: str, path: str, cost: str) -> Finding:
    if not here:
        return Finding(name, _ELSEWHERE, False, "tests that need it say so when they run")
    there = (machine.root / path).exists()
    return Finding(name, f"/{path}" if there else "missing", there, "" if there else cost)


def _registry_finding(client: docker.DockerClient) -> Finding:
    ok = registry_answers(client)
    cost = "the base image is bootstrapped from Debian's packages, and images cannot be pulled"
    return Finding("registry", "answers" if ok else "no answer", ok, "" if ok else cost)


def _amount(name: str, amount: float, least: float, unit: str, cost: str) -> Finding:
    ok = amount >= least
    return Finding(name, f"{amount:.4g}{unit}", ok, "" if ok else cost)
