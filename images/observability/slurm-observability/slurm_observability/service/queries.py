"""What the API reads from the database and the board."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from slurm_observability.schema import JobSample, JobState, NodeSample
from slurm_observability.service import answers
from slurm_observability.service.audit import now
from slurm_observability.service.board import SILENT_AFTER, Board
from slurm_observability.service.errors import Refusal
from slurm_observability.service.models import Audit, EventRow, JobSampleRow, Node, Run, RunNode

_ID = re.compile(r"(?:slurm-)?([1-9][0-9]{0,9})")
#: How many points a small graph has.
HISTORY_POINTS = 40


def number(text: str) -> int:
    """A job's id, `7` or `slurm-7`.

    Raises:
        Refusal: it is none.
    """
    found = _ID.fullmatch(text)
    if not found:
        raise Refusal(404, "job_not_found", f"{text!r} is no job id: 7 and slurm-7 are")
    return int(found[1])


def run_of(session: Session, text: str, cluster: str | None, run: int | None) -> Run:
    """A run of a job, by default its last.

    Raises:
        Refusal: there is none.
    """
    job_id = number(text)
    query = sa.select(Run).where(Run.job_id == job_id).order_by(Run.id.desc()).limit(1)
    if cluster is not None:
        query = query.where(Run.cluster == cluster)
    query = query.where(Run.latest.is_(True)) if run is None else query.where(Run.run == run)
    found = session.scalar(query)
    if found is None:
        which = f"run {run} of job {job_id}" if run is not None else f"job {job_id}"
        where = f" in cluster {cluster}" if cluster is not None else ""
        raise Refusal(404, "job_not_found", f"there is no {which}{where}")
    return found


def jobs(
    session: Session,
    board: Board,
    *,
    states: Sequence[JobState],
    user: str | None,
    node: str | None,
    limit: int,
    offset: int,
    history: float,
) -> answers.Jobs:
    """Some jobs, each in its latest run, newest first."""
    query = sa.select(Run).where(Run.latest.is_(True))
    if states:
        query = query.where(Run.state.in_([state.value for state in states]))
    if user is not None:
        query = query.where(Run.user == user)
    if node is not None:
        query = query.where(Run.id.in_(sa.select(RunNode.run_key).where(RunNode.node == node)))
    total = session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
    # Those that end or wait last among equals; ids grow with time.
    runs = list(session.scalars(query.order_by(Run.id.desc()).limit(limit).offset(offset)))
    at = now()
    usage = usages(board, at, {run.id for run in runs})
    found = [job(run, at, usage.get(run.id)) for run in runs]
    if history:
        points = _history(session, [run.id for run in runs], at - timedelta(minutes=history), at)
        for run, one in zip(runs, found, strict=True):
            one.history = points.get(run.id, [])
    return answers.Jobs(total=total, limit=limit, offset=offset, jobs=found)


def job(run: Run, at: datetime, usage: answers.Usage | None = None) -> answers.Job:
    """A run, as the API shows it."""
    runtime = None
    if run.started_at is not None:
        until = run.finished_at or run.suspended_at or at
        runtime = max(0.0, (until - run.started_at).total_seconds() - run.suspended_seconds)
    columns = {name: getattr(run, name) for name in answers.Job.model_fields if name in Run.__mapper__.column_attrs}
    del columns["id"]
    return answers.Job(id=f"slurm-{run.job_id}", runtime_seconds=runtime, usage=usage, **columns)


def briefs(session: Session, of: Run) -> list[answers.RunBrief]:
    """All runs of a run's job, oldest first."""
    query = sa.select(Run).where(Run.job_id == of.job_id, Run.cluster == of.cluster).order_by(Run.run)
    return [answers.RunBrief.model_validate(run, from_attributes=True) for run in session.scalars(query)]


def usages(board: Board, at: datetime, keys: set[int]) -> dict[int, answers.Usage]:
    """What runs use now."""
    read: dict[int, list[tuple[datetime, JobSample]]] = defaultdict(list)
    nodes = board.nodes()
    for run, name, sample in board.readings(at):
        if run.key in keys and sample is not None:
            seen = nodes.get((run.cluster, name))
            read[run.key].append((seen.sample.timestamp if seen else at, sample))
    return {key: _usage(entries) for key, entries in read.items()}


def _usage(entries: Sequence[tuple[datetime, JobSample]]) -> answers.Usage:
    samples = [sample for _, sample in entries]
    gpus = [gpu for sample in samples for gpu in sample.gpus]
    return answers.Usage(
        sampled_at=max(at for at, _ in entries),
        nodes=len(samples),
        cpu_usage_percent=_mean(sample.cpu_usage_percent for sample in samples),
        memory_usage_bytes=_sum(sample.memory_usage_bytes for sample in samples),
        gpu_usage_percent=_mean(gpu.utilization_percent for gpu in gpus),
        stand_in=any(gpu.stand_in for gpu in gpus),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    read = [value for value in values if value is not None]
    return sum(read) / len(read) if read else None


def _sum(values: Iterable[int | None]) -> int | None:
    read = [value for value in values if value is not None]
    return sum(read) if read else None


def _history(session: Session, keys: Sequence[int], since: datetime, until: datetime) -> dict[int, list[answers.Point]]:
    """Small series: the time in as many parts as a small graph has points; what was last read in each."""
    step = (until - since) / HISTORY_POINTS
    row = JobSampleRow
    query = (
        sa.select(row.run_key, row.node, row.timestamp, row.cpu_usage_percent, row.memory_usage_bytes)
        .where(row.run_key.in_(keys), row.timestamp >= since)
        .order_by(row.timestamp)
    )
    parts: dict[int, dict[int, dict[str, tuple[float | None, int | None]]]] = defaultdict(lambda: defaultdict(dict))
    for key, node, timestamp, cpu, memory in session.execute(query):
        parts[key][int((timestamp - since) / step)][node] = (cpu, memory)
    return {
        key: [
            answers.Point(
                timestamp=since + step * (part + 1),
                cpu_usage_percent=_mean(cpu for cpu, _ in by_node.values()),
                memory_usage_bytes=_sum(memory for _, memory in by_node.values()),
            )
            for part, by_node in sorted(series.items())
        ]
        for key, series in parts.items()
    }


def metrics(
    session: Session, run: Run, since: datetime | None, until: datetime | None, points: int
) -> answers.JobMetrics:
    """The time series of a run."""
    where = [JobSampleRow.run_key == run.id]
    if since is not None:
        where.append(JobSampleRow.timestamp >= since)
    if until is not None:
        where.append(JobSampleRow.timestamp <= until)
    most = session.scalar(
        sa.select(sa.func.count()).where(*where).group_by(JobSampleRow.node).order_by(sa.func.count().desc()).limit(1)
    )
    every = max(1, -(-(most or 0) // points))
    # Counted from the last, so that the last is always there.
    place = sa.func.row_number().over(partition_by=JobSampleRow.node, order_by=JobSampleRow.timestamp.desc())
    numbered = sa.select(JobSampleRow.id, place.label("place")).where(*where).subquery()
    chosen = (
        sa.select(JobSampleRow)
        .join(numbered, numbered.c.id == JobSampleRow.id)
        .where((numbered.c.place - 1) % every == 0)
        .order_by(JobSampleRow.timestamp)
    )
    nodes: dict[str, list[answers.Reading]] = {name: [] for name in run.node_list}
    for row in session.scalars(chosen):
        reading = answers.Reading(
            timestamp=row.timestamp,
            cpu_usage_percent=row.cpu_usage_percent,
            cpu_seconds=row.cpu_seconds,
            memory_usage_bytes=row.memory_usage_bytes,
            peak_memory_bytes=row.peak_memory_bytes,
            **(row.details or {}),
        )
        nodes.setdefault(row.node, []).append(reading)
    return answers.JobMetrics(
        job_id=run.job_id,
        cluster=run.cluster,
        run=run.run,
        every=every,
        nodes=[answers.NodeReadings(node=name, samples=samples) for name, samples in nodes.items()],
    )


def events(session: Session, run: Run) -> answers.Events:
    """The events of a run's job."""
    query = (
        sa.select(EventRow, Run.run)
        .join(Run, Run.id == EventRow.run_key)
        .where(Run.job_id == run.job_id, Run.cluster == run.cluster)
        .order_by(Run.run, EventRow.kind.desc())
    )
    found = [
        answers.EventItem(
            kind=row.kind,
            run=of,
            source=row.source,
            key=row.key,
            timestamp=row.timestamp,
            received_at=row.received_at,
            body=row.body,
        )
        for row, of in session.execute(query)
    ]
    return answers.Events(job_id=run.job_id, cluster=run.cluster, events=found)


def counts(session: Session) -> answers.Counts:
    """How many jobs are in each state."""
    query = sa.select(Run.state, sa.func.count()).where(Run.latest.is_(True)).group_by(Run.state)
    return answers.Counts(states={JobState(state): count for state, count in session.execute(query)})


def nodes(session: Session, board: Board) -> answers.Nodes:
    """The nodes, by name; where Slurm has told of a cluster, those that it has: other hosts have agents, too."""
    at = now()
    running: dict[str, list[int]] = defaultdict(list)
    for run in board.runs():
        for name in run.nodes:
            running[name].append(run.job_id)
    rows = session.scalars(sa.select(Node)).all()
    told = {row.cluster for row in rows if row.state}
    found = [_node(row, at, sorted(running[row.node])) for row in rows if row.state or row.cluster not in told]
    found.sort(key=lambda node: natural(node.node))
    return answers.Nodes(total=len(found), nodes=found)


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts n2 before n10.

    Example:
        >>> sorted(["n10", "n2"], key=natural)
        ['n2', 'n10']
    """
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _node(row: Node, at: datetime, job_ids: list[int]) -> answers.NodeItem:
    sample = NodeSample.model_validate(row.sample) if row.sample is not None else None
    silent = None
    if sample is not None and row.seen_at is not None:
        silent = at - row.seen_at > timedelta(seconds=SILENT_AFTER * sample.interval_seconds)
    return answers.NodeItem(
        node=row.node,
        cluster=row.cluster,
        state=row.state,
        reason=row.reason,
        cpus=row.cpus,
        cpus_allocated=row.cpus_allocated,
        memory_mb=row.memory_mb,
        memory_allocated_mb=row.memory_allocated_mb,
        gres=row.gres,
        silent=silent,
        seen_at=row.seen_at,
        sampled_at=row.sampled_at,
        cpu_usage_percent=sample.cpu_usage_percent if sample else None,
        memory_usage_bytes=sample.memory_usage_bytes if sample else None,
        job_count=sample.job_count if sample else None,
        jobs=job_ids,
        agent_version=sample.version if sample else "",
        unread=sample.unread if sample else [],
    )


def audit(session: Session, job_id: int | None, limit: int, offset: int) -> answers.AuditLog:
    """Some changes, newest first."""
    where = [] if job_id is None else [Audit.job_id == job_id]
    total = session.scalar(sa.select(sa.func.count()).select_from(Audit).where(*where)) or 0
    rows = session.scalars(sa.select(Audit).where(*where).order_by(Audit.id.desc()).limit(limit).offset(offset))
    changes = [answers.AuditItem.model_validate(row, from_attributes=True) for row in rows]
    return answers.AuditLog(total=total, limit=limit, offset=offset, changes=changes)
