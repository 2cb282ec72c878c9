"""The events that the records of prologs and epilogs stand for."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_observability.node.cgroups import Reading
from slurm_observability.node.records import Record
from slurm_observability.schema import GpuVendor, JobFinished, JobStarted, JobState, Source

_MIB = 2**20


def started(
    record: Record,
    *,
    cgroup_path: str | None = None,
    memory_limit_bytes: int | None = None,
    gpu_vendor: GpuVendor | None = None,
    unread: Sequence[str] = (),
) -> JobStarted:
    """The event of a prolog.

    Args:
        record: what the prolog left.
        cgroup_path: the job's folder on this node, if it has one yet.
        memory_limit_bytes: what the kernel lets the job have on this node, where that is what Slurm gave it: no
            variable of a prolog tells it.
        gpu_vendor: who made this node's GPUs.
        unread: what could not be read of these, and why.

    Raises:
        RecordError: the record's list of nodes is none.
    """
    values, nodes, gpus = record.values, record.nodes, record.gpus_here
    # Of the other nodes a prolog does not know these.
    alone = len(nodes) <= 1 and not record.of_slurmctld
    return JobStarted(
        job_id=record.job_id,
        cluster=values.get("SLURM_CLUSTER_NAME", ""),
        node_list=nodes,
        timestamp=record.timestamp,
        restarts=record.restarts,
        source=Source.PROLOG_SLURMCTLD if record.of_slurmctld else Source.PROLOG,
        user=values.get("SLURM_JOB_USER", ""),
        name=values.get("SLURM_JOB_NAME", "")[:1024],
        partition=values.get("SLURM_JOB_PARTITION", ""),
        account=values.get("SLURM_JOB_ACCOUNT", ""),
        cpu_allocation=sum(record.cpus_per_node) or None,
        memory_allocation_mb=memory_limit_bytes // _MIB if alone and memory_limit_bytes else None,
        gpu_allocation=len(gpus) if alone else None,
        gpu_vendor=gpu_vendor if gpus else None,
        gpu_devices=gpus,
        cgroup_path=cgroup_path,
        array_job_id=record.number("SLURM_ARRAY_JOB_ID"),
        array_task_id=record.number("SLURM_ARRAY_TASK_ID"),
        # Slurm sets it to 0 for a job that is not heterogeneous.
        het_job_id=record.number("SLURM_HET_JOB_ID") or None,
        unread=list(unread),
    )


def finished(
    record: Record, reading: Reading | None = None, *, restarts: int | None = None, unread: Sequence[str] = ()
) -> JobFinished:
    """The event of an epilog.

    Its state is what an exit code and a signal tell: that a job ran into its limits, or was cancelled, they do not.
    The epilog of a run that is requeued is given 0:0, and the next run's restarts (seen with 26.05).

    Args:
        record: what the epilog left.
        restarts: what the prolog of the same run was given; None where that is not known.
        reading: what the kernel counted on this node, where that is of the whole job.
        unread: why it could not be read.

    Raises:
        RecordError: the record's list of nodes is none.
    """
    status = record.exit_status
    nodes = record.nodes
    notes = [*unread, *(reading.unread if reading else ())]
    state = JobState.COMPLETED if status == (0, 0) else JobState.FAILED
    if restarts is not None and record.restarts == restarts + 1:
        state = JobState.REQUEUED
    elif status is None:
        notes.append("final_state: the epilog was given no exit status")
    if reading and len(nodes) > 1:
        notes.append(f"cpu_seconds and peak_memory_bytes are those of {record.node}, one of {len(nodes)} nodes")
    return JobFinished(
        job_id=record.job_id,
        cluster=record.values.get("SLURM_CLUSTER_NAME", ""),
        node_list=nodes,
        timestamp=record.timestamp,
        restarts=restarts,
        source=Source.EPILOG_SLURMCTLD if record.of_slurmctld else Source.EPILOG,
        final_state=state,
        exit_code=status[0] if status else None,
        signal=status[1] if status else None,
        peak_memory_bytes=reading.peak_memory_bytes if reading else None,
        cpu_seconds=reading.cpu_seconds if reading else None,
        unread=[note[:1024] for note in notes],
    )
