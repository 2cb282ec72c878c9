"""The agent of a node: makes events of what Slurm's scripts leave, and has the others read and send."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from inotify_simple import INotify, flags

from slurm_observability.node.cgroups import Cgroups, JobFolder, Reading, find_cgroups
from slurm_observability.node.configuration import cluster_name, memory_limit_is_allocation
from slurm_observability.node.delivery import Delivery, Service
from slurm_observability.node.events import finished, started
from slurm_observability.node.gpus import find_gpus
from slurm_observability.node.jobs import Jobs
from slurm_observability.node.keeper import Keeper
from slurm_observability.node.records import Record, RecordError
from slurm_observability.node.sampling import Sampler, Sampling
from slurm_observability.node.spool import SLURMCTLD, RunningJob, Spool, boot_ns
from slurm_observability.schema import JobStarted, Unread

log = logging.getLogger(__name__)

#: So long a start waits for the job's folder, which Slurm makes after the prolog; seconds.
FOLDER_WITHIN = 0.3
#: So long an end waits for the folders of the steps to go; seconds.
STEPS_GONE_WITHIN = 2.0
_BEAT, _FAST_BEAT = 5.0, 0.02


@dataclass(frozen=True)
class Settings:
    """What the agent is told.

    Attributes:
        url: of the service.
        spool: the spool's folder.
        token_file: holds the agent's token.
        ca_file: whose certificates to believe.
        timeout: seconds for an answer.
        interval: seconds between samples.
        cgroup_root: where cgroups are mounted.
        hold: keep a job's folder until its last values have been read.
        host: the node's name, where neither Slurm's records nor its folders tell it.
        slurm_conf: slurm.conf of this node.
    """

    url: str
    spool: Path = Path("/var/spool/slurm-observability")
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout: float = 5
    interval: float = 10
    cgroup_root: Path = Path("/sys/fs/cgroup")
    hold: bool = True
    host: str = "localhost"
    slurm_conf: Path = Path("/etc/slurm/slurm.conf")


class Agent:
    """Everything that runs on a node.

    Args:
        settings: what it is told.

    Raises:
        OSError: the spool cannot be made, or the kernel gives no inotify.

    Example:
        >>> Agent(Settings(url="https://observability:8443")).run()  # doctest: +SKIP
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.spool = Spool(settings.spool)
        self.spool.prepare()
        self.cgroups: Cgroups | None = find_cgroups(settings.cgroup_root)
        self.jobs = Jobs(self.spool, self.spool.load_running(since_ns=boot_ns()))
        self.gpus = find_gpus()
        self.service = Service(
            settings.url, token_file=settings.token_file, ca_file=settings.ca_file, timeout=settings.timeout
        )
        self.keeper = Keeper(self.cgroups, self.jobs) if self.cgroups and settings.hold else None
        self.delivery = Delivery(self.spool, self.service)
        self._cluster = ""
        self.sampler = Sampler(
            self.cgroups,
            self.jobs,
            self.gpus,
            host=settings.host,
            cluster=self._cluster_name,
            interval=settings.interval,
            troubles=self._troubles,
        )
        self.sampling = Sampling(self.sampler, self.service)
        self._inotify = INotify()
        self._inotify.add_watch(self.spool.new, flags.CLOSE_WRITE | flags.MOVED_TO)

    def run(self) -> None:
        """Work until the process ends, at any moment: all that matters is in the spool."""
        # A thread that computes lets the keeper in at once, not after Python's 5 ms.
        sys.setswitchinterval(0.0005)
        for thread in (self.keeper, self.delivery, self.sampling):
            if thread:
                thread.start()
        log.info("watching %s, sending to %s", self.spool.new, self.settings.url)
        while True:
            waiting = self.step()
            self._inotify.read(timeout=int(1000 * (_FAST_BEAT if waiting else _BEAT)))

    def step(self) -> bool:
        """Look through the records.

        Returns:
            whether some of them wait for what Slurm is about to do.
        """
        waiting = made = False
        held_up: set[tuple[str, int]] = set()
        records = list(self.spool.records())
        ended = {(record.node, record.job_id) for record in records if not record.is_start and not record.of_slurmctld}
        for record in records:
            node = SLURMCTLD if record.of_slurmctld else record.node or self.settings.host
            ends = not record.is_start
            try:
                # A run's end makes its start ready, too; and comes before the next run's start.
                done = (node, record.job_id) not in held_up and (
                    self._end(record, node)
                    if ends
                    else self._start(record, node, may_wait=(record.node, record.job_id) not in ended)
                )
            except (RecordError, ValueError) as error:
                # A ValueError is pydantic's: what Slurm said does not fit into an event.
                self.spool.put_aside(record, str(error))
                continue
            if done:
                made = True
            else:
                waiting = True
                held_up.add((node, record.job_id))
        if made:
            self.delivery.wake()
        return waiting

    def _cluster_name(self) -> str:
        """ClusterName; empty until slurm.conf is there, which may come later, or a job has said it."""
        said = (job.cluster for job in self.jobs.all() if job.cluster)
        self._cluster = self._cluster or cluster_name(self.settings.slurm_conf) or next(said, "")
        return self._cluster

    # --- starts -------------------------------------------------------------------------------------------

    def _start(self, record: Record, node: str, *, may_wait: bool) -> bool:
        known = self.jobs.get(node, record.job_id)
        if not known or known.begun_ns != record.written_ns:
            self.jobs.add(_running(record, node))
        if record.of_slurmctld:
            self.spool.put(record, self.settings.host, started(record))
            return True
        if not known:
            self.sampling.wake()
        if not record.is_first_host:
            self.spool.done(record)
        elif (event := self._started(record, node, may_wait=may_wait)) is not None:
            self.spool.put(record, self.settings.host, event)
        else:
            return False
        return True

    def _started(self, record: Record, node: str, *, may_wait: bool) -> JobStarted | None:
        """The event of a prolog; None while the job's folder may still come, unless the job is over."""
        folder = reading = None
        unread = []
        if self.cgroups:
            folder = self.jobs.folder(self.cgroups, node, record.job_id, record.values.get("SLURM_JOB_SLUID"))
            reading = self.cgroups.read(folder) if folder else None
            wants_limit = memory_limit_is_allocation(self._slurm_conf(record), None)
            complete = reading and (reading.memory_limit_bytes or not wants_limit)
            if not complete and may_wait and _age(record) < FOLDER_WITHIN:
                return None
            if not folder:
                unread.append(f"cgroup_path: there was no folder within {FOLDER_WITHIN} s of the prolog")
        limit = reading.memory_limit_bytes if reading else None
        if not memory_limit_is_allocation(self._slurm_conf(record), limit):
            limit = None
        vendors = {gpus.vendor for gpus in self.gpus}
        if record.gpus_here and len(vendors) != 1:
            unread.append("gpu_vendor: the agent's PATH must have either nvidia-smi or rocm-smi")
        return started(
            record,
            cgroup_path=folder.path if folder else None,
            memory_limit_bytes=limit,
            gpu_vendor=vendors.pop() if len(vendors) == 1 else None,
            unread=unread,
        )

    def _slurm_conf(self, record: Record) -> Path:
        return Path(record.values.get("SLURM_CONF", self.settings.slurm_conf))

    # --- ends ---------------------------------------------------------------------------------------------

    def _end(self, record: Record, node: str) -> bool:
        job = self.jobs.get(node, record.job_id)
        restarts = job.restarts if job else None
        if record.of_slurmctld:
            note = "cpu_seconds, peak_memory_bytes: slurmctld's host does not have them"
            self.spool.put(record, self.settings.host, finished(record, restarts=restarts, unread=[note]))
            self.jobs.remove(node, record.job_id)
            return True
        sluid = record.values.get("SLURM_JOB_SLUID") or (job.sluid if job else None)
        folder = self.jobs.folder(self.cgroups, node, record.job_id, sluid) if self.cgroups else None
        if folder and self.cgroups and self.cgroups.steps(folder) and _age(record) < STEPS_GONE_WITHIN:
            return False
        reading, why = self._last_reading(record, folder, job)
        if record.is_first_host:
            notes = [f"cpu_seconds, peak_memory_bytes: {why}"] if why else []
            event = finished(record, reading, restarts=restarts, unread=notes)
            self.spool.put(record, self.settings.host, event)
        else:
            self.spool.done(record)
        if folder and reading and len(record.nodes) > 1:
            # The event has the values of one host alone.
            self.sampler.ended(folder, node, record.job_id, reading)
            self.sampling.wake()
        self.jobs.remove(node, record.job_id)
        if folder and self.keeper:
            self.keeper.let_go(folder)
        return True

    def _last_reading(
        self, record: Record, folder: JobFolder | None, job: RunningJob | None
    ) -> tuple[Reading | None, str | None]:
        """What the kernel counted for the whole job, or why that is not known."""
        if self.cgroups is None:
            return None, f"there are no cgroups at {self.settings.cgroup_root}"
        if job and job.incomplete:
            return None, job.incomplete
        if folder is None:
            trouble = self.keeper.trouble if self.keeper else "the agent holds no folders"
            return None, trouble or "the job's folder was gone, or there never was one"
        if self._has_begun_again(record):
            return None, f"{folder.path} has the job's next run, too: the agent was away when this one ended"
        if self.cgroups.steps(folder):
            return None, f"{folder.path} still has steps {STEPS_GONE_WITHIN:.0f} s after the epilog"
        return self.cgroups.read(folder), None

    def _has_begun_again(self, record: Record) -> bool:
        """Whether slurmd's prolog has told of the job on this node again, since its end."""
        return any(
            other.is_start and other.node == record.node and other.written_ns > record.written_ns
            for other in self.spool.records(record.job_id)
            if not other.of_slurmctld
        )

    def _troubles(self) -> list[Unread]:
        found = []
        if self.cgroups is None:
            found.append(Unread(what="cgroups", why=f"there are none at {self.settings.cgroup_root}"))
        if self.keeper and self.keeper.trouble:
            found.append(Unread(what="the last values of jobs", why=self.keeper.trouble[:1024]))
        if refused := self.spool.refusals():
            found.append(Unread(what=f"{refused} events", why=f"they are in {self.spool.refused}, with the reasons"))
        if self.delivery.trouble:
            found.append(Unread(what="the sending of events", why=self.delivery.trouble[:1024]))
        return found


def _running(record: Record, node: str) -> RunningJob:
    return RunningJob(
        node=node,
        job_id=record.job_id,
        cluster=record.values.get("SLURM_CLUSTER_NAME", ""),
        restarts=record.restarts,
        sluid=record.values.get("SLURM_JOB_SLUID"),
        cpus=record.cpus_here,
        gpus=tuple(record.gpus_here),
        begun_ns=record.written_ns,
    )


def _age(record: Record) -> float:
    return time.time() - record.written_ns / 1e9
