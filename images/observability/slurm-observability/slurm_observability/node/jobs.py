"""The jobs on this host: what their prologs said, and which folder is whose."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

from slurm_observability.node.cgroups import Cgroups, JobFolder
from slurm_observability.node.spool import SLURMCTLD, RunningJob, Spool

# setproctitle of slurmstepd, `slurmstepd: [12.batch]`: src/slurmd/slurmstepd/slurmstepd.c, _set_job_log_prefix.
_STEPD = re.compile(rb"slurmstepd: \[(\d+)\.")

_REMEMBERED = 1000


class Jobs:
    """The running jobs, kept in the spool; the agent's threads share it.

    Args:
        spool: where they are kept.
        jobs: those that run already.
    """

    def __init__(self, spool: Spool, jobs: Iterable[RunningJob] = ()) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._jobs = {(job.node, job.job_id): job for job in jobs}
        self._found: dict[JobFolder, int] = {}

    def add(self, job: RunningJob) -> None:
        """A job has begun."""
        with self._lock:
            self._jobs[job.node, job.job_id] = job
            self._spool.save_running(job)

    def remove(self, node: str, job_id: int) -> None:
        """A job has ended."""
        with self._lock:
            self._jobs.pop((node, job_id), None)
            self._spool.forget_running(node, job_id)

    def all(self) -> list[RunningJob]:
        """Those that run here, not those of which slurmctld's scripts told."""
        with self._lock:
            return [job for job in self._jobs.values() if job.node != SLURMCTLD]

    def get(self, node: str, job_id: int) -> RunningJob | None:
        with self._lock:
            return self._jobs.get((node, job_id))

    def of(self, folder: JobFolder) -> RunningJob | None:
        """The job that a folder belongs to, by its name."""
        return next((job for job in self.all() if self._fits(folder, job.node, job.job_id, job.sluid)), None)

    def mark_incomplete(self, folder: JobFolder, why: str) -> None:
        """Remember that the counters of a job's folder do not tell of the whole job; the first reason stays."""
        job = self.of(folder)
        if job and not job.incomplete:
            self.add(job.model_copy(update={"incomplete": why}))

    def folder(self, cgroups: Cgroups, node: str, job_id: int, sluid: str | None) -> JobFolder | None:
        """The folder of a job on a node, if it has one."""
        return next((f for f in cgroups.folders() if self._fits(f, node, job_id, sluid)), None)

    def job_id_of(self, folder: JobFolder, cgroups: Cgroups, proc: Path = Path("/proc")) -> int | None:
        """Which job a folder belongs to: by its name, by what its prolog said, or by its slurmstepd's title.

        The environment of the job's own processes is not asked: its user may write there what he likes.
        """
        if folder.job_id is not None:
            return folder.job_id
        if job := self.of(folder):
            return job.job_id
        if folder not in self._found:
            for pid in cgroups.processes(folder):
                job_id = _job_of_stepd(proc / str(pid))
                if job_id is not None:
                    if len(self._found) >= _REMEMBERED:
                        self._found.clear()
                    self._found[folder] = job_id
                    break
        return self._found.get(folder)

    def _fits(self, folder: JobFolder, node: str, job_id: int, sluid: str | None) -> bool:
        return (folder.node or node) == node and (
            folder.job_id == job_id if folder.job_id is not None else folder.name == sluid
        )


def _job_of_stepd(process: Path) -> int | None:
    try:
        # Only root's is Slurm's.
        if process.stat().st_uid != 0:
            return None
        match = _STEPD.search((process / "cmdline").read_bytes())
    except OSError:
        return None
    return int(match[1]) if match else None
