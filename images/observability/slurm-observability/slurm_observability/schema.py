"""What a node tells the service: the events and samples of the API.

Unknown keys are refused, so that a misspelt one is noticed. Every time is RFC 3339 with its offset. What could not
be read is None, and `unread` says why; nothing is guessed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

#: The header that makes a resend of an event the same event.
IDEMPOTENCY_KEY = "Idempotency-Key"
#: 1 to 200 printable characters of ASCII without spaces, e.g. `n1-1766000000123456789-prolog`.
KEY_PATTERN = r"^[!-~]{1,200}$"
#: Events of one request.
MOST_AT_ONCE = 100

#: PostgreSQL's text has no NUL.
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]
Path = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
#: Names of users, nodes, partitions, accounts, clusters; no control characters, as in a label of Prometheus.
Name = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
HostName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._-]+$")]
#: A job id of Slurm is 32 bits: https://slurm.schedmd.com/slurm.conf.html#OPT_MaxJobId
JobId = Annotated[int, Field(ge=1, le=2**32 - 1)]
#: What databases hold in 64 bits.
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
GpuVendor = Literal["nvidia", "amd"]


class JobState(StrEnum):
    """The states of https://slurm.schedmd.com/job_state_codes.html that a job is shown in."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETING = "completing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAIL = "node_fail"
    PREEMPTED = "preempted"
    REQUEUED = "requeued"
    BOOT_FAIL = "boot_fail"
    DEADLINE = "deadline"

    @property
    def final(self) -> bool:
        """Whether a run in this state has ended."""
        return self not in {JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING}


class Source(StrEnum):
    """Who reports an event: a script of Slurm's, or the service's own look at slurmrestd."""

    PROLOG = "prolog"
    PROLOG_SLURMCTLD = "prologslurmctld"
    EPILOG = "epilog"
    EPILOG_SLURMCTLD = "epilogslurmctld"
    RECONCILIATION = "reconciliation"


class Message(BaseModel):
    """What is sent to the service; it has no keys but these."""

    model_config = ConfigDict(extra="forbid")


class Event(Message):
    """What both kinds of events carry.

    Attributes:
        job_id: the job's id; of a task of an array or a part of a heterogeneous job its own, SLURM_JOB_ID.
        cluster: ClusterName; empty where the reporter does not know it.
        node_list: names of the job's nodes, expanded, in Slurm's order.
        timestamp: when it happened, by the reporter's clock.
        restarts: how often the job had been requeued before this run; None where the reporter does not know it.
        unread: what the reporter could not read, and why.
    """

    job_id: JobId
    cluster: Name = ""
    node_list: list[HostName] = Field(default_factory=list, max_length=65536)
    timestamp: AwareDatetime
    restarts: Annotated[int, Field(ge=0, le=65535)] | None = None
    unread: list[Text] = Field(default_factory=list, max_length=100)


class JobStarted(Event):
    """A run of a job has begun: POST /v1/events/job-started.

    Attributes:
        cpu_allocation: CPUs of the whole job.
        memory_allocation_mb: MiB of the whole job, as Slurm counts megabytes.
        gpu_allocation: GPUs of the whole job.
        gpu_devices: which GPUs, as Slurm numbers them, e.g. ["0", "1"].
        cgroup_path: the job's folder on the first node, beneath the hierarchy's root; None where there is none yet.
        array_job_id, array_task_id: of a task of an array; else None.
        het_job_id: of a part of a heterogeneous job, its leader's id; else None.

    Example:
        >>> JobStarted(job_id=7, user="alice", node_list=["n1"], timestamp="2026-01-01T00:00:00Z", source="prolog").user
        'alice'
    """

    source: Literal[Source.PROLOG, Source.PROLOG_SLURMCTLD, Source.RECONCILIATION]
    user: Name = ""
    name: Text = ""
    partition: Name = ""
    account: Name = ""
    cpu_allocation: Count | None = None
    memory_allocation_mb: Count | None = None
    gpu_allocation: Count | None = None
    gpu_vendor: GpuVendor | None = None
    gpu_devices: list[Name] = Field(default_factory=list, max_length=4096)
    cgroup_path: Path | None = None
    array_job_id: JobId | None = None
    array_task_id: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    het_job_id: JobId | None = None


class JobFinished(Event):
    """A run of a job has ended: POST /v1/events/job-finished.

    Attributes:
        final_state: provisional, as far as the reporter can know: from an exit code and a signal no epilog can tell a
            time limit. The service settles it by slurmdbd's record.
        exit_code: of the batch script, or of the step that failed.
        signal: the signal that ended it; 0 for none.
        peak_memory_bytes: the most that the kernel charged to the job, on the node where that was highest.
        cpu_seconds: CPU time, user and system, of the job on the reporter's node.
    """

    source: Literal[Source.EPILOG, Source.EPILOG_SLURMCTLD, Source.RECONCILIATION]
    final_state: JobState
    exit_code: Annotated[int, Field(ge=0, le=65535)] | None = None
    signal: Annotated[int, Field(ge=0, le=255)] | None = None
    peak_memory_bytes: Count | None = None
    cpu_seconds: Number | None = None

    @model_validator(mode="after")
    def _is_final(self) -> JobFinished:
        if not self.final_state.final:
            raise ValueError(f"final_state: {self.final_state} is no state in which a job has ended")
        return self


class EventAnswer(BaseModel):
    """What the service answers to an event: 201 at first, 200 to the same key again.

    Attributes:
        key: the Idempotency-Key.
        job_id: the job.
        run: which run of the job, from 0.
        state: the run's state after this event.
        recorded: whether this is the run's event; False where another source had reported it before.
    """

    key: str
    job_id: int
    run: int
    state: JobState
    recorded: bool


class StartedReport(Message):
    """A started event among several, with its Idempotency-Key."""

    kind: Literal["job-started"]
    key: Annotated[str, StringConstraints(pattern=KEY_PATTERN)]
    event: JobStarted


class FinishedReport(Message):
    """A finished event among several, with its Idempotency-Key."""

    kind: Literal["job-finished"]
    key: Annotated[str, StringConstraints(pattern=KEY_PATTERN)]
    event: JobFinished


Report = Annotated[StartedReport | FinishedReport, Field(discriminator="kind")]


class Reports(Message):
    """Several events at once: POST /v1/events, which takes them in their order, each as if it had come alone.

    One that does not fit, or whose key was another event's, fails the whole request: send them one by one then, which
    harms none that was taken already.
    """

    events: list[Report] = Field(min_length=1, max_length=MOST_AT_ONCE)


class ReportsAnswer(BaseModel):
    """What the service answers to several events, in their order."""

    events: list[EventAnswer]


class StepSample(Message):
    """A step of a job on a node, e.g. `0`, `batch`, `extern`, `interactive`."""

    name: Name
    cpu_seconds: Number | None = None
    memory_bytes: Count | None = None


class GpuSample(Message):
    """A GPU that a job has on a node; `stand_in` marks the values of a tool that only plays a GPU."""

    gpu_id: Name
    gpu_vendor: GpuVendor
    utilization_percent: Number | None = None
    memory_used_bytes: Count | None = None
    power_watts: Number | None = None
    temperature_celsius: Annotated[float, Field(allow_inf_nan=False)] | None = None
    stand_in: bool = False


class JobSample(Message):
    """A job on a node.

    Attributes:
        cpu_usage_percent: of the CPUs that the job has on this node, 0 to 100, over the time since the last reading;
            None at the first.
        cpu_seconds: the kernel's counter since the job began here.
        memory_usage_bytes: what the kernel charges to the job now (memory.current; v1: memory.usage_in_bytes).
        peak_memory_bytes: the most so far (memory.peak; v1: memory.max_usage_in_bytes).
        cgroup_path: the folder that was read, beneath the hierarchy's root.
        suspended: whether the job's processes are stopped.
    """

    job_id: JobId
    cpu_usage_percent: Number | None = None
    cpu_seconds: Number | None = None
    memory_usage_bytes: Count | None = None
    peak_memory_bytes: Count | None = None
    cgroup_path: Path | None = None
    steps: list[StepSample] = Field(default_factory=list, max_length=10000)
    gpus: list[GpuSample] = Field(default_factory=list, max_length=1024)
    suspended: bool = False


class Unread(Message):
    """What an agent could not read or send, and why."""

    what: Text
    why: Text


class NodeSample(Message):
    """What an agent read on its node at one moment: POST /v1/samples, which needs no key.

    A job that is not in `jobs` has no processes here any more. `timestamp` orders a node's samples: one that is not
    newer than the last is taken for a resend, and changes nothing.

    Attributes:
        cpu_usage_percent: of all the node's CPUs, 0 to 100.
        memory_usage_bytes: total minus available, of the whole node.
        job_count: jobs that run here.
        interval_seconds: when the agent means to send the next; after three of these a node counts as silent.
        version: the agent's.
    """

    node: HostName
    cluster: Name = ""
    timestamp: AwareDatetime
    cpu_usage_percent: Number | None = None
    memory_usage_bytes: Count | None = None
    job_count: Count
    interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    version: Name = ""
    jobs: list[JobSample] = Field(default_factory=list, max_length=10000)
    unread: list[Unread] = Field(default_factory=list, max_length=1000)


class SampleAnswer(BaseModel):
    """What the service answers to a sample.

    Attributes:
        recorded: False for one that is not newer than the node's last.
        unknown_jobs: jobs of which no event has told yet; their values were not kept.
    """

    recorded: bool
    unknown_jobs: list[int]


class ErrorBody(BaseModel):
    """What went wrong: `code` for programs, `message` for people."""

    code: str
    message: str


class Error(BaseModel):
    """The answer of every request that fails.

    Example:
        >>> Error(error=ErrorBody(code="job_not_found", message="there is no job 7")).model_dump_json()
        '{"error":{"code":"job_not_found","message":"there is no job 7"}}'
    """

    error: ErrorBody
