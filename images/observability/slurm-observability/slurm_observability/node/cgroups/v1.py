"""cgroup v1: a hierarchy for each controller, jobs in `slurm/uid_N/job_N/step_N`.

Builds for several slurmds on a host have `slurm_NODE` in place of `slurm`; 26.05 still names v1's folders by job id
(src/plugins/cgroup/v1/xcgroup.c).
"""

from __future__ import annotations

import re
from pathlib import Path

from slurm_observability.node.cgroups.base import Cgroups, File, JobFolder, children, count_cpus

_TOP = re.compile(r"slurm(?:_(?P<node>.+))?")
# memory.limit_in_bytes of a group without a limit: the greatest number of pages (mm/page_counter.c).
_UNLIMITED = 2**62


def _seconds(text: str) -> float:
    return int(text) / 1e9


def _limit(text: str) -> int | None:
    return int(text) if int(text) < _UNLIMITED else None


def _frozen(text: str) -> bool:
    return text.strip() in {"FROZEN", "FREEZING"}


class CgroupsV1(Cgroups):
    """The folders of jobs under v1; memory and CPU time are counted in hierarchies of their own."""

    cpu_seconds = File("cpuacct", "cpuacct.usage", _seconds)
    memory = File("memory", "memory.usage_in_bytes", int)
    peak_memory = File("memory", "memory.max_usage_in_bytes", int)
    memory_limit = File("memory", "memory.limit_in_bytes", _limit)
    cpus = File("cpuset", "cpuset.cpus", count_cpus)
    frozen = File("freezer", "freezer.state", _frozen)

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._memory, self._cpuacct = root / "memory", root / "cpuacct"

    def watched(self) -> list[Path]:
        found: list[Path] = []
        for controller in (self._memory, self._cpuacct):
            tops = [controller / top for top in self._tops(controller)]
            found += [controller, *tops, *(top / user for top in tops for user in children(top, "uid_"))]
        return [path for path in found if path.is_dir()]

    def folders(self) -> list[JobFolder]:
        found: dict[JobFolder, None] = {}
        for controller in (self._memory, self._cpuacct):
            for top, node in self._tops(controller).items():
                for user in children(controller / top, "uid_"):
                    for job in children(controller / top / user, "job_"):
                        if JobFolder.is_one(job):
                            found[JobFolder(f"/{top}/{user}/{job}", node)] = None
        return list(found)

    def folder_at(self, path: Path) -> JobFolder | None:
        _, *names = path.relative_to(self.root).parts
        top = _TOP.fullmatch(names[0]) if len(names) == 3 and JobFolder.is_one(names[2]) else None
        return JobFolder("/" + "/".join(names), top["node"]) if top else None

    def nodes(self) -> list[str]:
        return sorted({node for node in self._tops(self._memory).values() if node})

    def places(self, folder: JobFolder) -> list[tuple[Path, Path]]:
        return [(controller, self._in(controller, folder)) for controller in (self._memory, self._cpuacct)]

    def _is_ours_to_make(self, place: Path) -> bool:
        # In cpuacct it lasts for one batch step or one srun, not for the whole job: jobacct_gather/cgroup makes none
        # for the extern step. Only where Slurm uses the hierarchy at all, and the job is there.
        memory = self._memory / place.relative_to(place.parents[2])
        return place.is_relative_to(self._cpuacct) and place.parents[1].is_dir() and memory.is_dir()

    def _above(self, place: Path) -> list[Path]:
        return [place.parent]

    @staticmethod
    def _in(controller: Path, folder: JobFolder) -> Path:
        return controller / folder.path.lstrip("/")

    @staticmethod
    def _tops(controller: Path) -> dict[str, str | None]:
        """Slurm's own folders, and the nodes that their names tell."""
        matches = (_TOP.fullmatch(name) for name in children(controller, "slurm"))
        return {match[0]: match["node"] for match in matches if match}
