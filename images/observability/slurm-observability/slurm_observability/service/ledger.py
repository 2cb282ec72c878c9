"""Which run an event is about, and what it changes: one started and one finished event for each run of a job.

A run may be reported by several: the prolog of its first node, PrologSlurmctld, and our own look at Slurm. The first
report is the run's event; another source's fills in what is still empty. Reports may come late and in any order, for
they wait in a spool while the service is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from slurm_observability.schema import Event, EventAnswer, JobFinished, JobStarted, JobState, Source
from slurm_observability.service.audit import Who, note, now
from slurm_observability.service.models import EventRow, Receipt, Run, RunNode

STARTED, FINISHED = "started", "finished"
#: How far clocks of nodes and controller may differ before two reports are taken for two runs.
SLACK = timedelta(seconds=10)
#: The same, where both say how often the job had been requeued before: a busy head node starts its script late.
SAME_RUN_SLACK = timedelta(minutes=5)
#: Sources whose start is the allocation's. slurmd's prolog runs with it or, without PrologFlags=Alloc, at the first
#: step, which may be any time later.
_FROM_SLURMCTLD = frozenset({Source.PROLOG_SLURMCTLD, Source.RECONCILIATION})
#: What a started event fills in, by the same name.
_STARTED_FIELDS = (
    "user",
    "name",
    "partition",
    "account",
    "cpu_allocation",
    "memory_allocation_mb",
    "gpu_allocation",
    "gpu_vendor",
    "gpu_devices",
    "cgroup_path",
    "array_job_id",
    "array_task_id",
    "het_job_id",
)
_FINISHED_FIELDS = ("exit_code", "signal", "peak_memory_bytes", "cpu_seconds")


class KeyReusedError(Exception):
    """An Idempotency-Key stands for another event."""


def take(
    session: Session, event: JobStarted | JobFinished, key: str, who: Who, run: Run | None = None
) -> tuple[EventAnswer, Run | None]:
    """Record an event.

    Args:
        session: a writing one for the event's job.
        event: what is reported.
        key: its Idempotency-Key.
        who: who reports it.
        run: which run it is about, where the reporter knows; it is found else.

    Returns:
        The answer, and the run that it changed; None where this key has been answered before.

    Raises:
        KeyReusedError: the key was another event's.
    """
    kind = STARTED if isinstance(event, JobStarted) else FINISHED
    receipt = session.get(Receipt, key)
    if receipt is not None:
        if (receipt.kind, receipt.job_id) != (kind, event.job_id):
            raise KeyReusedError(
                f"the key {key} was the {receipt.kind} event of job {receipt.job_id}: each event has a key of its own"
            )
        return EventAnswer.model_validate(receipt.answer), None
    if run is None:
        runs = runs_of(session, event.job_id, event.cluster)
        run = _find(runs, event) or _new_run(session, runs, event, who)
    if isinstance(event, JobStarted):
        _apply_start(run, event)
    else:
        _apply_end(run, event)
    recorded = not any(known == kind for known in _recorded(session, run))
    note(session, who, f"job-{kind}", run, key)
    session.flush()
    if recorded:
        body = event.model_dump(mode="json")
        at = {"timestamp": event.timestamp, "received_at": now()}
        session.add(EventRow(run_key=run.id, kind=kind, source=event.source, key=key, body=body, **at))
    state = JobState(run.state)
    answer = EventAnswer(key=key, job_id=run.job_id, run=run.run, state=state, recorded=recorded)
    session.add(
        Receipt(key=key, kind=kind, job_id=run.job_id, received_at=now(), answer=answer.model_dump(mode="json"))
    )
    session.flush()
    return answer, run


def runs_of(session: Session, job_id: int, cluster: str) -> list[Run]:
    """The runs of a job, oldest first; a run whose cluster nobody has told yet may be any cluster's."""
    query = sa.select(Run).where(Run.job_id == job_id).order_by(Run.run)
    if cluster:
        query = query.where(Run.cluster.in_([cluster, ""]))
    runs = list(session.scalars(query))
    if runs and not cluster:
        last = max(runs, key=lambda run: run.id).cluster
        runs = [run for run in runs if run.cluster == last]
    return runs


def change(run: Run, name: str, value: Any) -> None:
    """Set a column, if that changes it: the audit has no rows that say nothing."""
    if getattr(run, name) != value:
        setattr(run, name, value)


def close(run: Run, state: JobState, at: datetime) -> None:
    """End a run in a state."""
    stop_suspension(run, at)
    change(run, "state", state.value)
    if run.finished_at is None:
        run.finished_at = at


def stop_suspension(run: Run, at: datetime) -> None:
    """Count the time that a run was suspended, if it is."""
    if run.suspended_at is not None:
        run.suspended_seconds += max(0.0, (at - run.suspended_at).total_seconds())
        run.suspended_at = None


def set_nodes(run: Run, names: Sequence[str]) -> None:
    """Say on which nodes a run is."""
    if list(names) == run.node_list:
        return
    run.node_list = list(names)
    known = {node.node for node in run.nodes}
    run.nodes += [RunNode(node=name) for name in dict.fromkeys(names) if name not in known]


def add_up(run: Run) -> None:
    """Complete a run's peak memory, of the node where it was highest, and its CPU time, of all nodes, by samples."""
    peaks = [node.peak_memory_bytes for node in run.nodes if node.peak_memory_bytes is not None]
    seconds = [node.cpu_seconds for node in run.nodes if node.cpu_seconds is not None]
    if peaks:
        change(run, "peak_memory_bytes", max([*peaks, run.peak_memory_bytes or 0]))
    if seconds:
        change(run, "cpu_seconds", max(sum(seconds), run.cpu_seconds or 0.0))


def _recorded(session: Session, run: Run) -> list[str]:
    if run.id is None:
        return []
    return list(session.scalars(sa.select(EventRow.kind).where(EventRow.run_key == run.id)))


def _find(runs: Sequence[Run], event: JobStarted | JobFinished) -> Run | None:
    if isinstance(event, JobStarted):
        return _started(runs, event)
    return _ended(runs, event, timedelta()) or _ended(runs, event, SLACK)


def _started(runs: Sequence[Run], event: JobStarted) -> Run | None:
    """The run that this may be the start of, which another source, or nobody, has reported to start."""
    return _last([run for run in runs if _may_start(run, event)], event)


def _may_start(run: Run, event: JobStarted) -> bool:
    if event.source in run.started_by or not _same_restarts(run, event):
        return False
    slack = SLACK if run.restarts is None or event.restarts is None else SAME_RUN_SLACK
    if run.finished_at is not None and event.timestamp > run.finished_at + slack:
        return False
    if run.started_at is None:
        return True
    if event.source in _FROM_SLURMCTLD:
        return event.timestamp <= run.started_at + slack
    return event.timestamp >= run.started_at - slack


def _ended(runs: Sequence[Run], event: JobFinished, slack: timedelta) -> Run | None:
    """The run that this may be the end of, which another source may have reported: the last that had begun by then."""
    begun = [run for run in runs if run.started_at is not None and run.started_at <= event.timestamp + slack]
    last = begun[-1:]
    # One that waits, or whose start is still on its way, ends only after those before it.
    waiting = [run for run in runs if run.started_at is None]
    free = [run for run in [*waiting, *last] if event.source not in run.finished_by and _same_restarts(run, event)]
    return _last(free, event)


def _last(runs: Sequence[Run], event: Event) -> Run | None:
    exact = [run for run in runs if event.restarts is not None and run.restarts == event.restarts]
    return next(reversed(exact or runs), None)


def _same_restarts(run: Run, event: Event) -> bool:
    return run.restarts is None or event.restarts is None or run.restarts == event.restarts


def _new_run(session: Session, runs: Sequence[Run], event: JobStarted | JobFinished, who: Who) -> Run:
    for other in runs:
        if other.finished_at is None and (other.started_at or event.timestamp) <= event.timestamp:
            # Slurm runs a job once at a time: the end of that run has not reached us.
            close(other, JobState.REQUEUED, event.timestamp)
            note(session, who, "run-superseded", other)
    run = new_run(session, runs, event.job_id, event.cluster, _number(runs, event))
    change(run, "restarts", event.restarts)
    return run


def _number(runs: Sequence[Run], event: Event) -> int:
    """The new run's number: the next, or that of its restarts, where those with more of them began later."""
    number = next_number(runs)
    if event.restarts is None:
        return number
    later = [run for run in runs if run.run >= event.restarts]
    if all(run.run > event.restarts and (run.started_at or event.timestamp) >= event.timestamp for run in later):
        return event.restarts
    return number


def next_number(runs: Sequence[Run]) -> int:
    """The number of a job's next run."""
    return max([-1, *(run.run for run in runs)]) + 1


def new_run(session: Session, runs: Sequence[Run], job_id: int, cluster: str, number: int) -> Run:
    """Add a run, which waits, to those of its job."""
    latest = number >= next_number(runs)
    for other in runs if latest else ():
        change(other, "latest", False)
    run = Run(
        cluster=cluster,
        job_id=job_id,
        run=number,
        state=JobState.PENDING.value,
        latest=latest,
        settled=False,
        reason="",
        name="",
        user="",
        partition="",
        account="",
        node_list=[],
        gpu_devices=[],
        unread=[],
        started_by=[],
        finished_by=[],
        suspended_seconds=0.0,
    )
    session.add(run)
    return run


def _complete(run: Run, event: Event, names: Sequence[str]) -> None:
    for name in names:
        if getattr(run, name) in (None, "", []) and getattr(event, name) not in (None, "", []):
            setattr(run, name, getattr(event, name))
    if event.cluster and not run.cluster:
        run.cluster = event.cluster
    if run.restarts is None and event.restarts is not None:
        run.restarts = event.restarts
    if not run.node_list and event.node_list:
        set_nodes(run, event.node_list)
    if new := [text for text in event.unread if text not in run.unread]:
        run.unread = [*run.unread, *new]


def _apply_start(run: Run, event: JobStarted) -> None:
    _complete(run, event, _STARTED_FIELDS)
    run.started_by = [*run.started_by, event.source.value]
    if run.started_at is None:
        run.started_at = event.timestamp
    if run.state == JobState.PENDING:
        run.state = JobState.RUNNING.value
        change(run, "reason", "")


def _apply_end(run: Run, event: JobFinished) -> None:
    first = not run.finished_by
    run.finished_by = [*run.finished_by, event.source.value]
    if first and not run.settled:
        # Also where we had taken it for ended, because the next run had begun.
        run.finished_at = None
        close(run, event.final_state, event.timestamp)
    _complete(run, event, _FINISHED_FIELDS)
    for node in run.nodes:
        # An epilog reads its own node, and the first node's is the one that reports.
        if run.node_list and node.node == run.node_list[0]:
            _raise(node, "peak_memory_bytes", event.peak_memory_bytes)
            _raise(node, "cpu_seconds", event.cpu_seconds)
    add_up(run)


def _raise(node: RunNode, name: str, value: float | None) -> None:
    """Keep the larger value of a counter that only grows."""
    if value is not None and value > (getattr(node, name) or 0):
        setattr(node, name, value)
