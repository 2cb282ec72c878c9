"""Samples: what the jobs on a node, and the node itself, use at one moment."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import psutil

from slurm_observability import __version__
from slurm_observability.node.cgroups import Cgroups, JobFolder, Reading
from slurm_observability.node.delivery import Outcome, Service
from slurm_observability.node.gpus import GpuError, Gpus
from slurm_observability.node.jobs import Jobs
from slurm_observability.schema import GpuSample, JobSample, NodeSample, StepSample, Unread

log = logging.getLogger(__name__)

#: A job's first seconds are read more often, for it may not have many.
_YOUNG, _YOUNG_INTERVAL = 5.0, 1.0
#: But never so often that reading takes more than this part of a core.
_SHARE = 0.007


class Sampler:
    """Makes the samples of the nodes on this host: usually one, more where several slurmds run on it.

    Args:
        cgroups: this host's; None where it has none.
        jobs: the running jobs.
        gpus: readers of this node's GPUs.
        host: the node's name where the folders of jobs tell none.
        cluster: says ClusterName, empty while it is not known.
        interval: seconds between two samples.
        troubles: what else could not be done: each says so, or None.
    """

    def __init__(
        self,
        cgroups: Cgroups | None,
        jobs: Jobs,
        gpus: list[Gpus],
        *,
        host: str,
        cluster: Callable[[], str] = str,
        interval: float = 10,
        troubles: Callable[[], list[Unread]] = list,
    ) -> None:
        self._cgroups = cgroups
        self._jobs = jobs
        self._gpus = gpus
        self._host = host
        self._cluster = cluster
        self._interval = interval
        self._troubles = troubles
        self._readings: dict[JobFolder, Reading] = {}
        self._seen: dict[JobFolder, float] = {}
        self._ended: queue.SimpleQueue[tuple[JobFolder, str, int, Reading]] = queue.SimpleQueue()
        #: Jobs of which the service was told by samples alone.
        self.unknown: set[int] = set()
        #: CPU seconds that the last sample took.
        self.cost = 0.0
        psutil.cpu_percent()  # from now on

    def sample(self) -> list[NodeSample]:
        """Read all jobs now."""
        began = time.thread_time()
        cpu, memory = psutil.cpu_percent(), psutil.virtual_memory()
        unread = self._troubles()
        gpus = self._read_gpus(unread)
        nodes = (self._cgroups.nodes() if self._cgroups else []) or [self._host]
        found: dict[str, list[JobSample]] = {node: [] for node in nodes}
        cluster = self._cluster()
        self._read_jobs(found, gpus, unread)
        made = [
            NodeSample(
                node=node,
                cluster=cluster,
                timestamp=datetime.now(UTC),
                cpu_usage_percent=cpu,
                memory_usage_bytes=memory.total - memory.available,
                job_count=len(jobs),
                interval_seconds=self._interval,
                version=__version__,
                jobs=jobs,
                unread=unread[:1000],
            )
            for node, jobs in found.items()
        ]
        self.cost = time.thread_time() - began
        return made

    def ended(self, folder: JobFolder, node: str, job_id: int, last: Reading) -> None:
        """Put a job's last reading into the next sample; may be called from any thread."""
        self._ended.put((folder, node, job_id, last))

    def pause(self) -> float:
        """Seconds until the next sample is due."""
        young = any(time.monotonic() - since < _YOUNG for since in self._seen.values())
        return max(min(self._interval, _YOUNG_INTERVAL) if young else self._interval, self.cost / _SHARE)

    def _read_jobs(self, found: dict[str, list[JobSample]], gpus: dict[str, GpuSample], unread: list[Unread]) -> None:
        now = time.monotonic()
        folders = self._cgroups.folders() if self._cgroups else []
        running = {(job.node, job.job_id) for job in self._jobs.all()}
        self._seen = {folder: self._seen.get(folder, now) for folder in folders}
        self._readings = {folder: last for folder, last in self._readings.items() if folder in self._seen}
        read: set[tuple[str, int]] = set()
        while not self._ended.empty():
            ended = self._ended.get()
            found.setdefault(ended[1], []).append(self._job(*ended, gpus, unread))
        for folder in folders:
            assert self._cgroups is not None
            node = folder.node or self._host
            reading = self._cgroups.read(folder)
            # Without a step it is ours alone: the job waits between two steps, or has ended.
            if not reading.steps:
                continue
            job_id = self._jobs.job_id_of(folder, self._cgroups)
            if job_id is None:
                unread.append(Unread(what=folder.path, why="no prolog told which job it is, and no slurmstepd in it"))
                continue
            read.add((node, job_id))
            unread += [Unread(what=f"job {job_id}", why=why[:1024]) for why in reading.unread]
            found.setdefault(node, []).append(self._job(folder, node, job_id, reading, gpus, unread))
        if self._cgroups is None or not (folders or self._cgroups.nodes()):
            for node, job_id in sorted(running - read):
                found.setdefault(node, []).append(JobSample(job_id=job_id))
                unread.append(Unread(what=f"job {job_id}", why="Slurm holds no jobs in cgroups on this node"))

    def _job(
        self,
        folder: JobFolder,
        node: str,
        job_id: int,
        reading: Reading,
        gpus: dict[str, GpuSample],
        unread: list[Unread],
    ) -> JobSample:
        job = self._jobs.get(node, job_id)
        cpus = (job.cpus if job else None) or reading.cpus
        if cpus is None:
            unread.append(Unread(what=f"job {job_id}", why="how many CPUs it has: no prolog and no cpuset says it"))
        if job_id in self.unknown:
            unread.append(Unread(what=f"job {job_id}", why="it runs here, but its prolog left no record"))
        own = [gpus[gpu] for gpu in job.gpus if gpu in gpus] if job else []
        return JobSample(
            job_id=job_id,
            cpu_usage_percent=self._percent(folder, reading, cpus),
            cpu_seconds=reading.cpu_seconds,
            memory_usage_bytes=reading.memory_bytes,
            peak_memory_bytes=reading.peak_memory_bytes,
            cgroup_path=folder.path,
            steps=[
                StepSample(name=step.name, cpu_seconds=step.cpu_seconds, memory_bytes=step.memory_bytes)
                for step in reading.steps
            ],
            gpus=own,
            suspended=reading.suspended,
        )

    def _percent(self, folder: JobFolder, now: Reading, cpus: int | None) -> float | None:
        """Of the job's CPUs, since the last reading."""
        before, self._readings[folder] = self._readings.get(folder), now
        if not before or before.cpu_seconds is None or now.cpu_seconds is None or cpus is None:
            return None
        used, passed = now.cpu_seconds - before.cpu_seconds, now.read_at - before.read_at
        # Less than before: the folder was made anew.
        return 100 * used / passed / cpus if used >= 0 and passed > 0 else None

    def _read_gpus(self, unread: list[Unread]) -> dict[str, GpuSample]:
        if not any(job.gpus for job in self._jobs.all()):
            return {}
        found: dict[str, GpuSample] = {}
        if not self._gpus:
            unread.append(Unread(what="GPUs", why="there is neither nvidia-smi nor rocm-smi on the agent's PATH"))
        for gpus in self._gpus:
            try:
                found |= gpus.read()
            except GpuError as error:
                unread.append(Unread(what="GPUs", why=str(error)[:1024]))
        return found


class Sampling(threading.Thread):
    """Sends samples, again and again; one that cannot be sent is not kept.

    Args:
        sampler: makes them.
        service: where they go.
    """

    def __init__(self, sampler: Sampler, service: Service) -> None:
        super().__init__(name="sampling", daemon=True)
        self._sampler = sampler
        self._service = service
        self._woken = threading.Event()
        self._trouble: str | None = None

    def run(self) -> None:
        while True:
            self._woken.clear()
            try:
                self.send()
            except Exception:
                # One sample less; the next may be read.
                log.exception("no sample could be made")
            self._woken.wait(self._sampler.pause())

    def wake(self) -> None:
        """A job has begun: read it soon."""
        self._woken.set()

    def send(self) -> None:
        """Read, and send what was read."""
        unknown: set[int] = set()
        trouble = None
        for sample in self._sampler.sample():
            answer = self._service.post("/v1/samples", sample.model_dump(mode="json"))
            if answer.outcome is Outcome.DELIVERED and isinstance(answer.body, dict):
                unknown |= set(answer.body.get("unknown_jobs", []))
            elif answer.outcome is not Outcome.DELIVERED:
                trouble = answer.text
        if trouble and not self._trouble:
            log.warning("a sample was not taken: %s", trouble)
        self._trouble = trouble
        self._sampler.unknown = unknown
