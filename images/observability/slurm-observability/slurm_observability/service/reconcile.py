"""Makes what we know agree with what Slurm knows: states that no epilog can tell, and jobs that no event told of."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from slurm_observability.schema import JobFinished, JobStarted, JobState, Source
from slurm_observability.service import answers, ledger
from slurm_observability.service.audit import Who, note, now
from slurm_observability.service.board import Board
from slurm_observability.service.database import Database
from slurm_observability.service.models import JobSampleRow, Node, NodeSampleRow, Receipt, Run
from slurm_observability.service.nodes import NO_FACTS, node_row, place_of
from slurm_observability.service.scheduler import SchedulerError, SlurmJob, SlurmNode, Slurmrestd

log = logging.getLogger(__name__)
#: How long the node's own reports may take before we report in their place.
GRACE = timedelta(seconds=10)
#: Seconds between two looks at Slurm, where runs end all the time.
_SOON = 1.0
#: How many jobs one look asks slurmdbd about one by one, how many seconds it lets pass at most before it asks about
#: the same one again, and for how long after its end a run is asked about.
_AT_ONCE = 20
_PATIENCE = 300
_GIVE_UP = timedelta(days=2)
#: Of which time all records are asked for at once, and from how long before the first end.
_RECENT = timedelta(hours=1)
_MARGIN = timedelta(minutes=1)
_CLEAN_SECONDS = 3600.0
_SLURMCTLD = Who("service", "slurmctld")
_SLURMDBD = Who("service", "slurmdbd")


class Reconciler:
    """Looks at Slurm every few seconds, in a thread of its own.

    Args:
        database: where the runs are.
        board: what is true now.
        slurmrestd: who is asked; None for nobody, and only old samples are removed.
        seconds: between two looks; one comes soon after a run has ended.
        retention: how long samples and ended runs are kept.
    """

    def __init__(
        self, database: Database, board: Board, slurmrestd: Slurmrestd | None, *, seconds: float, retention: timedelta
    ) -> None:
        self._database, self._board, self._slurmrestd = database, board, slurmrestd
        self._seconds, self._retention = seconds, retention
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._status = answers.Scheduler(backend="none" if slurmrestd is None else "slurm")
        self._cleaned = float("-inf")
        # Runs that slurmdbd had no final record of, and when to ask again.
        self._later: dict[int, tuple[datetime, int]] = {}

    def status(self) -> answers.Scheduler:
        """How slurmrestd was found last."""
        return self._status.model_copy()

    def nudge(self) -> None:
        """A run has ended: look soon."""
        self._wake.set()

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; a look that is under way is finished first."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception:
                # Nothing that Slurm answers may end the thread: the next look may find it well.
                log.exception("a look at Slurm failed")
                self._status = self._status.model_copy(update={"ok": False, "message": "failed; the log says why"})
            begun = time.monotonic()
            self._wake.wait(self._seconds)
            self._wake.clear()
            self._stopping.wait(max(0.0, _SOON - (time.monotonic() - begun)))

    def look(self) -> None:
        """Look once: at slurmctld's jobs and nodes, then at slurmdbd's records of what is not settled."""
        if self._slurmrestd is not None:
            self._status = self._ask(self._slurmrestd)
        if time.monotonic() - self._cleaned > _CLEAN_SECONDS:
            self._cleaned = time.monotonic()
            self.clean()

    def _ask(self, slurmrestd: Slurmrestd) -> answers.Scheduler:
        before = self._status
        try:
            asked = now()
            jobs, nodes = slurmrestd.jobs(), slurmrestd.nodes()
            # slurmctld names the cluster of its jobs, and of the nodes of others only.
            cluster = next((job.cluster for job in jobs if job.cluster), "")
            self._take_nodes([dataclasses.replace(node, cluster=node.cluster or cluster) for node in nodes])
            for job in jobs:
                self._take_job(job, asked)
            unsettled = self._settle(slurmrestd, {job.job_id for job in jobs if not _untold(job)})
        except SchedulerError as error:
            if before.ok is not False:
                log.warning("Slurm cannot be asked: %s", error)
                slurmrestd.forget()
            return before.model_copy(update={"ok": False, "message": str(error), "asked_at": now()})
        if before.ok is not True:
            log.info("Slurm answers, %s", slurmrestd.version)
        return answers.Scheduler(
            backend="slurm", ok=True, asked_at=now(), api_version=slurmrestd.version, unsettled=unsettled
        )

    # --- slurmctld --------------------------------------------------------------------------------------

    def _take_nodes(self, nodes: Sequence[SlurmNode]) -> None:
        with self._database.read() as session:
            known = {(row.cluster, row.node): _facts(row) for row in session.scalars(sa.select(Node))}
        places = [place_of(node.cluster, node.name, known) for node in nodes]
        new = [
            node
            for node, place in zip(nodes, places, strict=True)
            if not place or known[place] != _facts(node) or (node.cluster and not place[0])
        ]
        clusters = {place[0] for place in places if place}
        gone = [
            place
            for place, facts in known.items()
            if place not in places and place[0] in clusters and any(facts.values())
        ]
        if not new and not gone:
            return
        with self._database.write() as session:
            for node in new:
                _set(node_row(session, node.cluster, node.name), _facts(node))
            for place in gone:
                _set(session.get_one(Node, place, with_for_update=True), NO_FACTS)

    def _take_job(self, job: SlurmJob, asked: datetime) -> None:
        with self._database.read() as session:
            runs = ledger.runs_of(session, job.job_id, job.cluster)
            if not _news(runs, job):
                return
        with self._database.write(job.job_id) as session:
            runs = ledger.runs_of(session, job.job_id, job.cluster)
            for run in self._changed(session, runs, job, asked):
                session.info["afterwards"].append(lambda run=run: self._board.put(run))

    def _changed(self, session: Session, runs: list[Run], job: SlurmJob, asked: datetime) -> list[Run]:
        """Change what slurmctld knew better when it was asked; returns the runs that the board must hear of."""
        who = _SLURMCTLD
        run = _current(runs, job)
        if job.state is JobState.PENDING:
            if run is None:
                if _has_begun_since(runs, job, asked):
                    return []
                run = ledger.new_run(session, runs, job.job_id, job.cluster, ledger.next_number(runs))
            _describe(run, job)
            note(session, who, "job-pending", run)
            session.flush()
            return [run]
        known = run is not None and Source.RECONCILIATION in run.started_by
        started = None if known else _start_of(job)
        if started is not None and (run is not None or _late(job.started_at)):
            ledger.take(session, started, _key(job, "started"), who, run)
            run = _current(ledger.runs_of(session, job.job_id, job.cluster), job)
        if run is None:
            if not _untold(job):
                return []
            run = ledger.new_run(session, runs, job.job_id, job.cluster, ledger.next_number(runs))
        _describe(run, job)
        if _ended(job):
            if not run.finished_by and _untold(job):
                note(session, who, "job-corrected", run)
                session.flush()
                ledger.take(session, _end_of(job, run), _key(job, "finished"), who, run)
            if run.finished_by and not run.settled:
                _correct(run, job)
        elif run.finished_at is None:
            _show(run, job)
        note(session, who, "job-corrected", run)
        session.flush()
        return [run]

    # --- slurmdbd ---------------------------------------------------------------------------------------

    def _settle(self, slurmrestd: Slurmrestd, alive: set[int]) -> int:
        """Ask slurmdbd about runs that have ended, also if no one has told so: slurmctld has the job in another run,
        or not any more.

        Returns:
            How many are left.
        """
        at = now()
        with self._database.read() as session:
            query = sa.select(Run.id, Run.job_id, Run.finished_at, Run.latest).where(
                Run.settled.is_(False), sa.or_(Run.finished_at.is_(None), Run.finished_at > at - _GIVE_UP)
            )
            rows = session.execute(query.order_by(Run.id)).all()
        wanted = [row for row in rows if row.finished_at is not None or not row.latest or row.job_id not in alive]
        self._later = {row.id: self._later[row.id] for row in wanted if row.id in self._later}
        due = [row for row in wanted if self._later.get(row.id, (at, 0))[0] <= at]
        records: dict[int, list[SlurmJob]] = defaultdict(list)
        # One question for all that have just ended: slurmdbd needs nearly as long for one job.
        recent = [row.finished_at for row in due if row.finished_at is not None and row.finished_at > at - _RECENT]
        if recent:
            for record in slurmrestd.ended_since(min(recent) - _MARGIN):
                records[record.job_id].append(record)
        alone = [row.job_id for row in due if row.job_id not in records]
        for job_id in list(dict.fromkeys(alone))[:_AT_ONCE]:
            records[job_id] = slurmrestd.ended(job_id)
        left = len(wanted)
        for row in due:
            if row.job_id not in records:
                continue
            if self._settle_one(row.id, row.job_id, records[row.job_id]):
                left -= 1
            else:
                tries = self._later.get(row.id, (at, 0))[1] + 1
                self._later[row.id] = (at + timedelta(seconds=min(_PATIENCE, 2**tries)), tries)
        return left

    def _settle_one(self, key: int, job_id: int, records: list[SlurmJob]) -> bool:
        with self._database.write(job_id) as session:
            run = session.get(Run, key)
            if run is None or run.settled:
                return True
            others = [one for one in ledger.runs_of(session, job_id, run.cluster) if one.id != key]
            record = match(run, records, others)
            if record is None:
                return False
            settle(session, run, record)
            session.info["afterwards"].append(lambda: self._board.put(run))
            return True

    # --- what is old ------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Remove samples, and ended runs with their events, that are older than is kept; the audit stays."""
        before = now() - self._retention
        for statement in (
            sa.delete(JobSampleRow).where(JobSampleRow.timestamp < before),
            sa.delete(NodeSampleRow).where(NodeSampleRow.timestamp < before),
            sa.delete(Receipt).where(Receipt.received_at < before),
            sa.delete(Run).where(Run.finished_at < before),
        ):
            with self._database.write() as session:
                session.execute(statement)


def match(run: Run, records: Sequence[SlurmJob], others: Sequence[Run] = ()) -> SlurmJob | None:
    """The final record of slurmdbd's that is this run's, by the count of restarts or, in older releases, by the time.

    Args:
        run: a run of the job.
        records: the job's, oldest first.
        others: its other runs.
    """
    if run.cluster:
        records = [record for record in records if record.cluster in {run.cluster, ""}]
    final = [record for record in records if record.state.final and record.finished_at is not None]
    if run.started_at is None:
        # It never was on a node, or its start is still on its way.
        since = [one for one in final if not run.submitted_at or _end(one) >= run.submitted_at - ledger.SLACK]
        fitting = since[-1:] if since[-1:] == records[-1:] else []
    else:
        fitting = [one for one in final if one.nodes and _was_under_way(one, run.started_at)]
    exact = [one for one in fitting if one.restarts is not None and one.restarts == run.restarts]
    # Slurm holds a requeued job for two minutes; an administrator may start it as soon as its last run has ended.
    own = [one for one in fitting if not any(_is_nearer(other, run, one) for other in others)]
    return next(reversed(exact or own), None)


def _was_under_way(record: SlurmJob, at: datetime) -> bool:
    begun = record.started_at or _end(record)
    return begun - ledger.SLACK <= at <= _end(record) + ledger.SLACK


def _is_nearer(other: Run, run: Run, record: SlurmJob) -> bool:
    """Whether another run began nearer to when the record says that its own did.

    Slurm's times are whole seconds, and a node tells of the start after slurmctld: of two as near it is the later.
    """
    if other.started_at is None or run.started_at is None:
        return False
    begun = record.started_at or _end(record)
    ranks = [(abs(at.replace(microsecond=0) - begun), begun - at) for at in (other.started_at, run.started_at)]
    return ranks[0] < ranks[1]


def settle(session: Session, run: Run, record: SlurmJob) -> None:
    """Take slurmdbd's record for the last word on a run."""
    if not run.finished_by:
        ledger.take(session, _end_of(record, run), _key(record, "finished", run.run), _SLURMDBD, run)
    _correct(run, record)
    _describe(run, record)
    run.settled = True
    note(session, _SLURMDBD, "job-settled", run)


def _end(record: SlurmJob) -> datetime:
    assert record.finished_at is not None
    return record.finished_at


def _ended(job: SlurmJob) -> bool:
    return job.state.final and not job.completing and job.finished_at is not None


def _untold(job: SlurmJob) -> bool:
    """Whether a job has ended, and no report of a node can be on its way."""
    return _ended(job) and (_late(job.finished_at) or not job.nodes)


def _late(at: datetime | None) -> bool:
    return at is not None and now() - at > GRACE


def _current(runs: list[Run], job: SlurmJob) -> Run | None:
    """The run that slurmctld's job is in."""
    for run in reversed(runs):
        if None not in {run.restarts, job.restarts} and run.restarts != job.restarts:
            continue
        if job.state is JobState.PENDING:
            # A job waits after its last run has ended, or before any.
            if run.finished_at is None and run.started_at is None:
                return run
            continue
        if run.started_at is None:
            if run.finished_at is None or job.finished_at is None or run.finished_at >= job.finished_at - ledger.SLACK:
                return run
            continue
        begun = job.started_at is None or job.started_at <= run.started_at + ledger.SLACK
        ended = run.finished_at is not None and (
            job.started_at is not None and run.finished_at < job.started_at - ledger.SLACK
        )
        if begun and not ended:
            return run
    return None


def _has_begun_since(runs: list[Run], job: SlurmJob, asked: datetime) -> bool:
    """Whether a job that waited when slurmctld was asked has begun meanwhile, as its prolog told."""
    return any(
        run.restarts == job.restarts
        if None not in {run.restarts, job.restarts}
        else run.started_at > asked - ledger.SLACK
        for run in runs
        if run.started_at is not None
    )


def _news(runs: list[Run], job: SlurmJob) -> bool:
    """Whether slurmctld says anything that we do not have: most looks find nothing."""
    run = _current(runs, job)
    if run is None:
        return job.state is JobState.PENDING or _late(job.started_at) or _untold(job)
    if run.settled:
        return False
    if job.state is JobState.PENDING:
        return run.reason != job.reason or not run.user
    if _ended(job):
        if not run.finished_by:
            return _untold(job)
        return run.state != job.state.value or job.exit_code not in {None, run.exit_code} or job.signal != run.signal
    if Source.RECONCILIATION not in run.started_by and job.started_at is not None:
        return True
    return run.finished_at is None and run.state != _shown(job).value


def _shown(job: SlurmJob) -> JobState:
    return JobState.COMPLETING if job.completing else job.state


def _show(run: Run, job: SlurmJob) -> None:
    """Show a run as slurmctld does: running, suspended, completing."""
    shown = _shown(job)
    at = now()
    if shown is JobState.SUSPENDED and run.suspended_at is None:
        run.suspended_at = at
    elif shown is not JobState.SUSPENDED:
        ledger.stop_suspension(run, at)
    ledger.change(run, "state", shown.value)


def _describe(run: Run, job: SlurmJob) -> None:
    """Complete what no reporter told."""
    for name, value in (
        ("cluster", job.cluster),
        ("restarts", job.restarts),
        ("name", job.name),
        ("user", job.user),
        ("partition", job.partition),
        ("account", job.account),
        ("cpu_allocation", job.cpus),
        ("memory_allocation_mb", job.memory_mb),
        ("gpu_allocation", job.gpus),
        ("array_job_id", job.array_job_id),
        ("array_task_id", job.array_task_id),
        ("het_job_id", job.het_job_id),
        ("submitted_at", job.submitted_at),
    ):
        if getattr(run, name) in (None, "") and value not in (None, ""):
            setattr(run, name, value)
    if job.nodes and not run.node_list:
        ledger.set_nodes(run, job.nodes)
    ledger.change(run, "reason", job.reason if job.state is JobState.PENDING else "")


def _correct(run: Run, job: SlurmJob) -> None:
    """Take Slurm's word on how a run ended."""
    ledger.change(run, "state", job.state.value)
    if job.exit_code is not None:
        ledger.change(run, "exit_code", job.exit_code)
        ledger.change(run, "signal", job.signal)


def _start_of(job: SlurmJob) -> JobStarted | None:
    """The started event of a job that no one may have reported; None for one that was never on a node."""
    if job.started_at is None or not job.nodes:
        return None
    return JobStarted(
        job_id=job.job_id,
        cluster=job.cluster,
        source=Source.RECONCILIATION,
        timestamp=job.started_at,
        restarts=job.restarts,
        node_list=list(job.nodes),
        user=job.user,
        name=job.name,
        partition=job.partition,
        account=job.account,
        cpu_allocation=job.cpus,
        memory_allocation_mb=job.memory_mb,
        gpu_allocation=job.gpus,
        array_job_id=job.array_job_id,
        array_task_id=job.array_task_id,
        het_job_id=job.het_job_id,
    )


def _end_of(job: SlurmJob, run: Run) -> JobFinished:
    assert job.finished_at is not None
    return JobFinished(
        job_id=job.job_id,
        cluster=job.cluster,
        source=Source.RECONCILIATION,
        timestamp=job.finished_at,
        restarts=run.restarts,
        node_list=run.node_list,
        final_state=job.state,
        exit_code=job.exit_code,
        signal=job.signal,
    )


def _key(job: SlurmJob, kind: str, run: int | None = None) -> str:
    """One for each run, whoever of slurmctld and slurmdbd tells of it."""
    begun = job.started_at or job.submitted_at
    at = int(begun.timestamp()) if begun else 0
    return f"reconciliation/{job.cluster}/{job.job_id}/{at if run is None else f'{at}-{run}'}/{kind}"


def _facts(node: Node | SlurmNode) -> dict[str, object]:
    return {name: getattr(node, name) for name in NO_FACTS}


def _set(row: Node, facts: Mapping[str, object]) -> None:
    for name, value in facts.items():
        setattr(row, name, value)
