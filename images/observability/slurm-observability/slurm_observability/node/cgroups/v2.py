"""cgroup v2: one hierarchy, jobs in `system.slice/slurmstepd.scope/job_N/step_N/user/task_N`.

Builds for several slurmds on a host have `NODE_slurmstepd.scope`. From 26.05 on a job's folder is named by its SLUID,
unless cgroup.conf has CgroupJobIdPaths=yes (src/plugins/cgroup/v2/cgroup_v2.c, cgroup_p_step_create).
"""

from __future__ import annotations

import re
from pathlib import Path

from slurm_observability.node.cgroups.base import Cgroups, File, JobFolder, children, count_cpus

_SCOPE = re.compile(r"(?:(?P<node>.+)_)?slurmstepd\.scope")


def _seconds(text: str) -> float:
    return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6


def _limit(text: str) -> int | None:
    return None if text.strip() == "max" else int(text)


def _frozen(text: str) -> bool:
    return int(text) == 1


class CgroupsV2(Cgroups):
    """The folders of jobs under v2."""

    cpu_seconds = File("", "cpu.stat", _seconds)
    memory = File("", "memory.current", int)
    peak_memory = File("", "memory.peak", int)
    memory_limit = File("", "memory.max", _limit)
    cpus = File("", "cpuset.cpus", count_cpus)
    frozen = File("", "user/cgroup.freeze", _frozen)

    def watched(self) -> list[Path]:
        # CgroupSlice of cgroup.conf may name another slice than system.slice.
        slices = [self.root / name for name in children(self.root, "") if name.endswith(".slice")]
        return [self.root, *slices, *self._scopes()]

    def folders(self) -> list[JobFolder]:
        return [
            JobFolder(f"/{(scope / job).relative_to(self.root)}", node)
            for scope, node in self._scopes().items()
            for job in children(scope, "")
            if JobFolder.is_one(job)
        ]

    def folder_at(self, path: Path) -> JobFolder | None:
        scope = _SCOPE.fullmatch(path.parent.name)
        return (
            JobFolder(f"/{path.relative_to(self.root)}", scope["node"])
            if scope and JobFolder.is_one(path.name)
            else None
        )

    def nodes(self) -> list[str]:
        return sorted({node for node in self._scopes().values() if node})

    def places(self, folder: JobFolder) -> list[tuple[Path, Path]]:
        place = self.root / folder.path.lstrip("/")
        return [(place.parent, place)]

    def _scopes(self) -> dict[Path, str | None]:
        """The scopes of slurmstepd, and the nodes that their names tell."""
        found: dict[Path, str | None] = {}
        for parent in ("", *(name for name in children(self.root, "") if name.endswith(".slice"))):
            for name in children(self.root / parent, ""):
                if match := _SCOPE.fullmatch(name):
                    found[self.root / parent / name] = match["node"]
        return found
