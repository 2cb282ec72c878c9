"""What the API answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from slurm_observability.schema import GpuSample, JobState, StepSample, Unread


class Database(BaseModel):
    """The database of the service."""

    ok: bool
    kind: str
    message: str = ""


class Scheduler(BaseModel):
    """slurmrestd, as the service last found it; `ok` is None before it was asked, and where none is configured."""

    backend: str
    ok: bool | None = None
    message: str = ""
    asked_at: datetime | None = None
    api_version: str = ""
    unsettled: int | None = None


class Agents(BaseModel):
    """How many agents have spoken, and which should have, but are silent."""

    seen: int
    silent: list[str]


class Health(BaseModel):
    """How the service is; `status` is `ok`, `degraded` (nothing is lost, but late) or `down`."""

    status: str
    version: str
    database: Database
    scheduler: Scheduler
    agents: Agents


class Reading(BaseModel):
    """What was read of a job on a node."""

    timestamp: datetime
    cpu_usage_percent: float | None = None
    cpu_seconds: float | None = None
    memory_usage_bytes: int | None = None
    peak_memory_bytes: int | None = None
    steps: list[StepSample] = []
    gpus: list[GpuSample] = []


class NodeReadings(BaseModel):
    """What was read of a job on a node, oldest first."""

    node: str
    samples: list[Reading]


class JobMetrics(BaseModel):
    """The time series of a run; `every` is 1 unless samples were left out, so that there are not too many."""

    job_id: int
    cluster: str
    run: int
    every: int
    nodes: list[NodeReadings]


class Usage(BaseModel):
    """What a job uses now, on all of its nodes that were read: CPU is the mean, memory the sum."""

    sampled_at: datetime
    nodes: int
    cpu_usage_percent: float | None = None
    memory_usage_bytes: int | None = None
    gpu_usage_percent: float | None = None
    stand_in: bool = False


class Point(BaseModel):
    """A job's use at a moment of its history: as `Usage` has it."""

    timestamp: datetime
    cpu_usage_percent: float | None = None
    memory_usage_bytes: int | None = None


class RunBrief(BaseModel):
    """A run of a job, in short."""

    run: int
    state: JobState
    settled: bool
    started_at: datetime | None
    finished_at: datetime | None


class Job(BaseModel):
    """A job in its latest run, or in the one that was asked for.

    `settled` says whether slurmdbd has confirmed the final state; `usage` is None where nothing is read now.
    """

    id: str
    job_id: int
    cluster: str
    run: int
    restarts: int | None
    state: JobState
    settled: bool
    reason: str
    name: str
    user: str
    partition: str
    account: str
    node_list: list[str]
    cpu_allocation: int | None
    memory_allocation_mb: int | None
    gpu_allocation: int | None
    gpu_vendor: str | None
    gpu_devices: list[str]
    cgroup_path: str | None
    array_job_id: int | None
    array_task_id: int | None
    het_job_id: int | None
    submitted_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    runtime_seconds: float | None
    exit_code: int | None
    signal: int | None
    peak_memory_bytes: int | None
    cpu_seconds: float | None
    unread: list[str]
    usage: Usage | None = None
    history: list[Point] | None = None
    runs: list[RunBrief] | None = None


class Jobs(BaseModel):
    """Some jobs, newest first, and how many there are in all."""

    total: int
    limit: int
    offset: int
    jobs: list[Job]


class EventItem(BaseModel):
    """A started or finished event, as it was reported."""

    kind: str
    run: int
    source: str
    key: str
    timestamp: datetime
    received_at: datetime
    body: dict[str, Any]


class Events(BaseModel):
    """The events of a job, of all of its runs, oldest first."""

    job_id: int
    cluster: str
    events: list[EventItem]


class NodeItem(BaseModel):
    """A node: what its agent read last, and what Slurm says of it.

    `silent` is None where no agent has spoken; the values of a silent one are its last.
    """

    node: str
    cluster: str
    state: str
    reason: str
    cpus: int | None
    cpus_allocated: int | None
    memory_mb: int | None
    memory_allocated_mb: int | None
    gres: str
    silent: bool | None
    seen_at: datetime | None
    sampled_at: datetime | None
    cpu_usage_percent: float | None
    memory_usage_bytes: int | None
    job_count: int | None
    jobs: list[int]
    agent_version: str
    unread: list[Unread]


class Nodes(BaseModel):
    """The nodes, by name."""

    total: int
    nodes: list[NodeItem]


class Counts(BaseModel):
    """How many jobs are in each state that any is in."""

    states: dict[JobState, int]


class AuditItem(BaseModel):
    """A change: who (a token's name, or `service`), from where (an address, or what was read), what it was before."""

    at: datetime
    who: str
    source: str
    action: str
    cluster: str
    job_id: int | None
    run: int | None
    key: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditLog(BaseModel):
    """Some changes, newest first, and how many there are in all."""

    total: int
    limit: int
    offset: int
    changes: list[AuditItem]
