"""Samples of agents: kept as a time series, and as the last word on each run and node."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from slurm_observability.schema import JobSample, JobState, NodeSample, SampleAnswer
from slurm_observability.service.audit import Who, note, now
from slurm_observability.service.board import Board, OpenRun, is_again
from slurm_observability.service.ledger import add_up, stop_suspension
from slurm_observability.service.models import JobSampleRow, NodeSampleRow, Run, RunNode
from slurm_observability.service.nodes import node_row

#: How long after a run's end its last samples may still come.
_LATE = timedelta(minutes=5)


def take(session: Session, board: Board, sample: NodeSample) -> SampleAnswer:
    """Record a sample.

    Args:
        session: a writing one.
        board: where the open runs are known.
        sample: what an agent read.
    """
    node = node_row(session, sample.cluster, sample.node)
    if node.sampled_at is not None and is_again(sample, node.sampled_at):
        return SampleAnswer(recorded=False, unknown_jobs=[])
    node.sampled_at, node.seen_at = sample.timestamp, now()
    node.sample = sample.model_dump(mode="json")
    session.add(
        NodeSampleRow(
            cluster=node.cluster,
            node=sample.node,
            timestamp=sample.timestamp,
            cpu_usage_percent=sample.cpu_usage_percent,
            memory_usage_bytes=sample.memory_usage_bytes,
            job_count=sample.job_count,
        )
    )
    keys = {job.job_id: one.key for job in sample.jobs if (one := board.find(job.job_id, sample.cluster))}
    ended = _ended(session, sample, {job.job_id for job in sample.jobs} - keys.keys())
    keys |= {job_id: run.id for job_id, run in ended.items()}
    jobs = [job for job in sample.jobs if job.job_id in keys]
    if jobs:
        session.execute(sa.insert(JobSampleRow), [_row(keys[job.job_id], sample, job) for job in jobs])
        _remember(session, sample.node, {keys[job.job_id]: job for job in jobs})
    session.flush()
    for run in ended.values():
        session.refresh(run, ["nodes"])
        add_up(run)
    seen_at = node.seen_at
    session.info["afterwards"].append(lambda: board.saw(sample, seen_at))
    unknown = sorted({job.job_id for job in sample.jobs} - keys.keys())
    return SampleAnswer(recorded=True, unknown_jobs=unknown)


def resumed_or_suspended(board: Board, sample: NodeSample) -> list[tuple[OpenRun, bool]]:
    """The runs that a sample finds suspended, or no more; a run's first node decides."""
    found = []
    for job in sample.jobs:
        run = board.find(job.job_id, sample.cluster)
        first = run is not None and run.nodes[:1] == (sample.node,)
        if run is not None and first and job.suspended != (run.suspended_at is not None):
            found.append((run, job.suspended))
    return found


def set_suspended(session: Session, key: int, suspended: bool, sample: NodeSample, who: Who) -> Run | None:
    """Say that a run is suspended, or no more; None where it has ended meanwhile."""
    run = session.get(Run, key)
    if run is None or run.finished_at is not None:
        return None
    if suspended and run.suspended_at is None:
        run.suspended_at, run.state = sample.timestamp, JobState.SUSPENDED.value
        note(session, who, "job-suspended", run)
    elif not suspended and run.suspended_at is not None:
        stop_suspension(run, sample.timestamp)
        run.state = JobState.RUNNING.value
        note(session, who, "job-resumed", run)
    return run


def _ended(session: Session, sample: NodeSample, job_ids: set[int]) -> dict[int, Run]:
    """Runs that have just ended, of jobs that are not open: an agent reads them once more when they end."""
    if not job_ids:
        return {}
    query = sa.select(Run).where(Run.job_id.in_(job_ids), Run.finished_at > sample.timestamp - _LATE)
    if sample.cluster:
        query = query.where(Run.cluster.in_([sample.cluster, ""]))
    runs = session.scalars(query.order_by(Run.run))
    return {run.job_id: run for run in runs if run.started_at is None or run.started_at <= sample.timestamp}


def _row(key: int, sample: NodeSample, job: JobSample) -> dict[str, Any]:
    details = job.model_dump(mode="json", include={"steps", "gpus"})
    return {
        "run_key": key,
        "node": sample.node,
        "timestamp": sample.timestamp,
        "cpu_usage_percent": job.cpu_usage_percent,
        "cpu_seconds": job.cpu_seconds,
        "memory_usage_bytes": job.memory_usage_bytes,
        "peak_memory_bytes": job.peak_memory_bytes,
        "details": details if job.steps or job.gpus else None,
    }


def _remember(session: Session, node: str, jobs: dict[int, JobSample]) -> None:
    """Keep the counters of each run on the node; they only grow."""
    query = sa.select(RunNode).where(RunNode.node == node, RunNode.run_key.in_(jobs))
    known = {row.run_key: row for row in session.scalars(query)}
    for key, job in jobs.items():
        row = known.get(key)
        if row is None:
            row = RunNode(run_key=key, node=node)
            session.add(row)
        if job.cpu_seconds is not None:
            row.cpu_seconds = max(job.cpu_seconds, row.cpu_seconds or 0.0)
        peaks = [job.peak_memory_bytes, job.memory_usage_bytes, row.peak_memory_bytes]
        row.peak_memory_bytes = max((peak for peak in peaks if peak is not None), default=None)
