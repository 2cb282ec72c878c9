"""Whether this host is set up so that its jobs are observed: what does not fit, in words."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slurm_observability.node.agent import Settings
from slurm_observability.node.cgroups import HOLD, find_cgroups
from slurm_observability.node.configuration import parse
from slurm_observability.node.delivery import Outcome, Service
from slurm_observability.node.gpus import find_gpus
from slurm_observability.node.spool import Spool

#: The name of the script in the folders of prologs and epilogs.
SCRIPT = "50-observability.sh"
_YES = {"yes", "true", "1"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        fits: whether it is as it must be.
        text: what was found; where it does not fit, also what to do.
    """

    fits: bool
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at Slurm's configuration, the scripts, the kernel, the spool, the token and the service."""
    conf = parse(settings.slurm_conf)
    if not conf:
        yield Finding(False, f"{settings.slurm_conf}: there is nothing to read: name the file with --slurm-conf")
    else:
        yield from _scripts(conf)
        yield from _slurmctld_scripts(conf)
        yield from _tracking(conf)
        yield from _cgroup_conf(settings.slurm_conf.with_name("cgroup.conf"))
    yield from _kernel(settings)
    yield from _gpus(settings.slurm_conf.with_name("gres.conf"))
    yield from _spool(settings)
    yield from _service(settings)


def _scripts(conf: dict[str, str]) -> Iterator[Finding]:
    for name in ("Prolog", "Epilog"):
        pattern = conf.get(name.lower(), "")
        found = _matches(pattern) if pattern else []
        if pattern and not found:
            # prep_script_slurmd.c: such a prolog fails, and the node is drained.
            yield Finding(False, f"{name}={pattern}: no such file: every job fails on it. Put {SCRIPT} there")
        elif not any(_is_ours(path) for path in found):
            yield Finding(
                False, f"{name}={pattern or '(not set)'}: {SCRIPT} is not among them: set {name} to its folder/*"
            )
        else:
            yield Finding(True, f"{name}={pattern}: {SCRIPT} is among them")
        yield from (
            Finding(False, f"{path}: not executable, so that {name} fails and the node is drained: chmod 755 {path}")
            for path in found
            if not os.access(path, os.X_OK)
        )


def _slurmctld_scripts(conf: dict[str, str]) -> Iterator[Finding]:
    for name in ("PrologSlurmctld", "EpilogSlurmctld"):
        path = conf.get(name.lower(), "")
        if not path:
            yield Finding(True, f"{name} is not set: the names and the array tasks of jobs come from slurmdbd, later")
        elif any(letter in path for letter in "*?["):
            yield Finding(False, f"{name}={path}: slurmctld does not expand a pattern: name one script")
        elif not Path(path).exists():
            # It is slurmctld's host that must have it.
            yield Finding(True, f"{name}={path}: not on this host")
        elif not os.access(path, os.X_OK):
            yield Finding(False, f"{path}: not executable: chmod 755 {path}")
        else:
            yield Finding(True, f"{name}={path}")


def _tracking(conf: dict[str, str]) -> Iterator[Finding]:
    wanted = {
        "ProctrackType": ("proctrack/cgroup", "jobs have no folder of which the kernel counts anything"),
        "TaskPlugin": ("task/cgroup", "jobs are not held to their memory, cores and devices"),
        "JobAcctGatherType": ("jobacct_gather/cgroup", "under cgroup v1 the CPU time of jobs is not counted"),
        "PrologFlags": ("contain", "what a job used before its present step is not counted"),
    }
    for name, (value, otherwise) in wanted.items():
        given = conf.get(name.lower(), "(not set)")
        fits = value in given.lower().split(",")
        yield Finding(
            fits, f"{name}={given}" + ("" if fits else f": without {value} {otherwise}: add it in slurm.conf")
        )


def _cgroup_conf(path: Path) -> Iterator[Finding]:
    conf = parse(path)
    if "cgroupreleaseagentdir" in conf:
        yield Finding(
            False,
            f"{path}: CgroupReleaseAgentDir: today's Slurm rejects it, and slurmd does not start: it was removed with "
            "22.05, and since 25.05 its name is unknown. Remove the line",
        )
    for name in ("ConstrainRAMSpace", "ConstrainSwapSpace", "ConstrainCores", "ConstrainDevices"):
        fits = conf.get(name.lower(), "no").lower() in _YES
        yield Finding(
            fits, f"{name}={conf.get(name.lower(), '(not set)')}" + ("" if fits else f": set it to yes in {path}")
        )


def _kernel(settings: Settings) -> Iterator[Finding]:
    cgroups = find_cgroups(settings.cgroup_root)
    if cgroups is None:
        yield Finding(
            False, f"{settings.cgroup_root}: there are no cgroups: mount them, or name the place: --cgroup-root"
        )
        return
    yield Finding(True, f"{settings.cgroup_root}: {type(cgroups).__name__.replace('Cgroups', 'cgroup ')}")
    if settings.hold:
        for folder in cgroups.folders():
            for _, place in cgroups.places(folder):
                if place.is_dir() and not os.access(place, os.W_OK):
                    yield Finding(
                        False,
                        f"{place}: {HOLD} cannot be made there, so that the last values of a job are lost: run the "
                        "agent as root, where the hierarchy is mounted for writing",
                    )


def _gpus(gres_conf: Path) -> Iterator[Finding]:
    try:
        has_gpus = "name=gpu" in gres_conf.read_text().lower().replace(" ", "")
    except OSError:
        return
    tools = [gpus.tool for gpus in find_gpus()]
    if has_gpus:
        text = ", ".join(tools) or f"{gres_conf} has GPUs, but neither nvidia-smi nor rocm-smi is on the PATH"
        yield Finding(bool(tools), f"GPUs: {text}")


def _spool(settings: Settings) -> Iterator[Finding]:
    spool = Spool(settings.spool)
    try:
        mode = spool.new.stat().st_mode
    except OSError as error:
        yield Finding(False, f"{spool.new}: {error.strerror}: the agent makes it when it starts as root")
        return
    if mode & stat.S_IRWXO:
        yield Finding(False, f"{spool.new}: everybody may write events there: chmod 1770 {spool.new}")
    else:
        yield Finding(True, f"{spool.new}")
    try:
        refused = spool.refusals()
    except OSError as error:
        yield Finding(False, f"{spool.refused}: {error.strerror}")
        return
    if refused:
        yield Finding(False, f"{spool.refused}: {refused} records or events that could not be used; see *.answer there")


def _service(settings: Settings) -> Iterator[Finding]:
    if settings.token_file:
        try:
            mode = settings.token_file.stat().st_mode
            settings.token_file.read_text()
        except OSError as error:
            yield Finding(
                False,
                f"{settings.token_file}: {error.strerror}: make a token with "
                "`slurm-observability token create --role agent`",
            )
            return
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield Finding(False, f"{settings.token_file}: others may read the token: chmod 400 {settings.token_file}")
    service = Service(settings.url, token_file=settings.token_file, ca_file=settings.ca_file, timeout=settings.timeout)
    # A sample that is none: who may send samples is told what it lacks.
    answer = service.post("/v1/samples", {})
    if answer.outcome is Outcome.REFUSED:
        yield Finding(True, f"{settings.url} takes what this agent sends")
    elif answer.text.startswith(("401", "403")):
        yield Finding(False, f"{settings.url} does not accept the token in {settings.token_file}: {answer.text}")
    else:
        yield Finding(False, f"{settings.url} cannot be used: {answer.text}")


def _matches(pattern: str) -> list[Path]:
    """The files that a Prolog or an Epilog stands for, which slurmd expands by glob(3)."""
    return sorted(Path("/").glob(pattern.lstrip("/")))


def _is_ours(path: Path) -> bool:
    return SCRIPT in {path.name, path.resolve().name}
