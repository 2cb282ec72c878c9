"""What the service knows of Slurm: jobs, partitions, and what is submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: States in which a job is over: https://slurm.schedmd.com/job_state_codes.html
_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED RECONFIG_FAIL "
    "REVOKED TIMEOUT".split()
)
_WAITING = frozenset("CONFIGURING PENDING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT".split())
#: A job's name has the session and its run, and the session's id the installation that made it.
_NAME = re.compile(r"app_session_(.+)\.(\d+)")
_PORT = re.compile(r"(?:^|[;, ])vnc_port=(\d{4,5})(?=$|[;, ])")
_PROBLEM = re.compile(r"(?:^|; )error=(.+)", re.DOTALL)
#: States of nodes, without the marks behind them, on which no job will begin by itself.
_UNUSABLE = re.compile(r"down|drain|fail|unk|inval|future|error|perfctrs", re.IGNORECASE)


def job_name(session_id: str, run: int) -> str:
    """The name of the job of a session's run.

    Example:
        >>> job_name("1a2b-3c", 2)
        'app_session_1a2b-3c.2'
    """
    return f"app_session_{session_id}.{run}"


@dataclass(frozen=True)
class SlurmJob:
    """A job, as squeue or slurmrestd tells of it.

    Attributes:
        state: Slurm's word in its long form, e.g. PENDING.
        node: the first node; empty where it has none.
        reason: why it waits or has failed, in Slurm's words; empty for none.
        comment: where the job script tells its port, or what is wrong.
    """

    job_id: int
    name: str
    user: str
    state: str
    node: str
    reason: str
    comment: str

    @property
    def alive(self) -> bool:
        """Whether anything of it may still run, or begin to."""
        return self.state not in _ENDED

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in _WAITING

    @property
    def session(self) -> tuple[str, int] | None:
        """The session and the run whose job it is, by its name; None where it is none of any."""
        match = _NAME.fullmatch(self.name)
        return (match[1], int(match[2])) if match else None

    @property
    def vnc_port(self) -> int | None:
        """Where its script says that websockify listens.

        Example:
            >>> SlurmJob(7, "x", "alice", "RUNNING", "viz1", "", "vnc_port=6081").vnc_port
            6081
        """
        match = _PORT.search(self.comment)
        return int(match[1]) if match and 1024 <= int(match[1]) <= 65535 else None

    @property
    def problem(self) -> str:
        """What its script says is wrong."""
        match = _PROBLEM.search(self.comment)
        return match[1].strip() if match else ""


@dataclass(frozen=True)
class Partition:
    """A partition: whether it takes jobs, and the states of its nodes, each with how many there are."""

    name: str
    up: bool
    nodes: Mapping[str, int]

    @property
    def trouble(self) -> str:
        """Why no job can begin there, in a sentence for people; empty where one can.

        Example:
            >>> Partition("viz", True, {"down*": 1, "drained": 1}).trouble
            'no node of the partition viz can run it (1 down*, 1 drained): an administrator resumes one, with scontrol'
        """
        if not self.up:
            return f"the partition {self.name} is down: an administrator sets it up, with scontrol"
        if not self.nodes:
            return f"the partition {self.name} has no node: an administrator adds one"
        if all(_UNUSABLE.search(state) for state in self.nodes):
            seen = ", ".join(f"{count} {state}" for state, count in sorted(self.nodes.items()))
            return (
                f"no node of the partition {self.name} can run it ({seen}): an administrator resumes one, with scontrol"
            )
        return ""


@dataclass(frozen=True)
class Submission:
    """A job to be submitted.

    Attributes:
        user: whose job it is.
        script: the batch script's path.
        memory_mib: of the node.
        minutes: its time limit.
        environment: what it is told; it holds a password, so it is in no argument and no log.
        output: a path on the node.
    """

    user: str
    name: str
    script: Path
    partition: str
    nodes: int
    cpus_per_task: int
    memory_mib: int
    minutes: int
    environment: Mapping[str, str]
    output: str


class Slurm(Protocol):
    """A way to speak to Slurm. All raise SlurmAwayError where it does not answer, SlurmError where it refuses."""

    async def submit(self, job: Submission) -> int:
        """Submit a job as its user, and return its id."""

    async def cancel(self, job_id: int, user: str) -> None:
        """Cancel a job as its user; one that is over is no error."""

    async def jobs(self) -> list[SlurmJob]:
        """All jobs that slurmctld knows, those included that ended some minutes ago."""

    async def partition(self, name: str) -> Partition | None:
        """A partition; None where there is none of that name."""

    async def node_address(self, node: str) -> str:
        """A node's address or host name, as Slurm itself reaches it."""
