"""What is true now, in memory: open runs and the last sample of each node; a scrape asks no database."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from slurm_observability.schema import JobSample, JobState, NodeSample
from slurm_observability.service.audit import now
from slurm_observability.service.ledger import SLACK
from slurm_observability.service.models import Node, Run

#: After so many intervals without a sample a node is silent.
SILENT_AFTER = 3
#: A sample may be this much older than the start of its run, for the clocks of node and controller differ.
_EARLY = timedelta(seconds=10)


@dataclass(frozen=True)
class OpenRun:
    """A run that has begun and not ended."""

    key: int
    cluster: str
    job_id: int
    user: str
    nodes: tuple[str, ...]
    started_at: datetime
    suspended_at: datetime | None
    suspended_seconds: float

    def seconds(self, at: datetime) -> float:
        """How long it has run, without the time it was suspended, as Slurm counts."""
        until = self.suspended_at or at
        return max(0.0, (until - self.started_at).total_seconds() - self.suspended_seconds)


@dataclass(frozen=True)
class Seen:
    """A node's last sample, and when it came, by our clock."""

    at: datetime
    sample: NodeSample
    jobs: dict[int, JobSample]

    def silent(self, at: datetime) -> bool:
        """Whether the next ones should have come."""
        return at - self.at > timedelta(seconds=SILENT_AFTER * self.sample.interval_seconds)


def is_again(sample: NodeSample, last: datetime) -> bool:
    """Whether a sample is one that came before: it is not newer than the last one of its node.

    Unless that one was of a clock that was ahead, and has been set since.
    """
    return sample.timestamp == last or sample.timestamp < last <= now() + SLACK


class Board:
    """Open runs, and the last sample of each node; safe for threads.

    Example:
        >>> board = Board()
        >>> board.nodes()
        {}
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[int, OpenRun] = {}
        self._of_job: dict[int, list[OpenRun]] = defaultdict(list)
        self._nodes: dict[tuple[str, str], Seen] = {}

    def load(self, session: Session) -> None:
        """Take what the database has, as at a start."""
        open_runs = sa.select(Run).where(Run.finished_at.is_(None), Run.started_at.is_not(None))
        for run in session.scalars(open_runs.options(selectinload(Run.nodes))):
            self.put(run)
        for node in session.scalars(sa.select(Node).where(Node.sample.is_not(None))):
            assert node.seen_at is not None
            self.saw(NodeSample.model_validate(node.sample), node.seen_at)

    def put(self, run: Run) -> None:
        """Take a run as it is now; one that waits or has ended leaves."""
        with self._lock:
            if old := self._runs.pop(run.id, None):
                others = [other for other in self._of_job[old.job_id] if other.key != old.key]
                self._of_job[old.job_id] = others
                if not others:
                    del self._of_job[old.job_id]
            if run.started_at is None or run.finished_at is not None or JobState(run.state).final:
                return
            new = OpenRun(
                key=run.id,
                cluster=run.cluster,
                job_id=run.job_id,
                user=run.user,
                nodes=tuple(run.node_list),
                started_at=run.started_at,
                suspended_at=run.suspended_at,
                suspended_seconds=run.suspended_seconds,
            )
            self._runs[run.id] = new
            self._of_job[run.job_id].append(new)

    def saw(self, sample: NodeSample, at: datetime) -> None:
        """Take a node's sample, unless a newer one is there."""
        place = (sample.cluster, sample.node)
        jobs = {job.job_id: job for job in sample.jobs}
        with self._lock:
            old = self._nodes.get(place)
            if old is None or not is_again(sample, old.sample.timestamp):
                self._nodes[place] = Seen(at, sample, jobs)
            if sample.cluster:
                # Its agent did not know the cluster before.
                self._nodes.pop(("", sample.node), None)

    def find(self, job_id: int, cluster: str) -> OpenRun | None:
        """The open run of a job; a cluster that is not known may be any."""
        with self._lock:
            for run in self._of_job.get(job_id, ()):
                if not cluster or run.cluster in {cluster, ""}:
                    return run
        return None

    def runs(self) -> list[OpenRun]:
        """The open runs."""
        with self._lock:
            return list(self._runs.values())

    def nodes(self) -> dict[tuple[str, str], Seen]:
        """The last samples, by cluster and node."""
        with self._lock:
            return dict(self._nodes)

    def readings(self, at: datetime) -> Iterator[tuple[OpenRun, str, JobSample | None]]:
        """Each open run on each of its nodes, with what was read of it there; nothing of a node that is silent.

        A node without an agent is not silent: its runs are known by their events.
        """
        nodes = self.nodes()
        by_name: dict[str, list[Seen]] = defaultdict(list)
        for (_, name), one in nodes.items():
            by_name[name].append(one)
        for run in self.runs():
            for name in run.nodes:
                alike = by_name.get(name, [])
                # An agent or an event may not know its cluster.
                seen = nodes.get((run.cluster, name)) or (alike[0] if len(alike) == 1 else None)
                if seen is None:
                    yield run, name, None
                elif not seen.silent(at):
                    job = seen.jobs.get(run.job_id)
                    # A sample from before the run began is of the job's last run.
                    yield run, name, job if seen.sample.timestamp >= run.started_at - _EARLY else None
