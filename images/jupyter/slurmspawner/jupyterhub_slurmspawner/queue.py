"""What squeue's answers mean for a server."""

from __future__ import annotations

import re

from batchspawner import JobStatus

# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
_WAITING = frozenset(
    "CONFIGURING PENDING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT".split(),
)
_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED "
    "TIMEOUT".split(),
)
# A server of a suspended job goes on later.
_THERE = frozenset("COMPLETING RESIZING RUNNING SIGNALING STAGE_OUT STOPPED SUSPENDED".split())
# squeue's and scancel's words for a job that slurmctld has forgotten, or that has ended before scancel came.
_GONE = re.compile(r"Invalid job id specified|already completing or completed|Job has already finished", re.IGNORECASE)


def job_status(answer: str) -> JobStatus:
    """The status of a job whose state begins an answer of squeue.

    Args:
        answer: a line that begins with a state in its long form; empty where squeue knows of no such job.

    Returns:
        NOTFOUND only where the job has ended; a state that a later Slurm may bring is UNKNOWN.

    Example:
        >>> job_status("SUSPENDED 2026-01-01T00:00:00 None n1")
        <JobStatus.RUNNING: 1>
    """
    state = answer.split(maxsplit=1)[0] if answer.strip() else ""
    if not state or state in _ENDED:
        return JobStatus.NOTFOUND
    if state in _WAITING:
        return JobStatus.PENDING
    return JobStatus.RUNNING if state in _THERE else JobStatus.UNKNOWN


def is_gone(error: str) -> bool:
    """Whether a command's error says that the job is no more; any other error says nothing about the job."""
    return bool(_GONE.search(error))


def state_of(answer: str) -> str:
    """The state that an answer begins with."""
    return answer.split(maxsplit=1)[0] if answer.strip() else ""


def reason_of(answer: str) -> str:
    """Why a job waits, from an answer `STATE START REASON… HOST`; empty where the answer has no reason.

    Example:
        >>> reason_of("PENDING N/A (ReqNodeNotAvail, UnavailableNodes:n1) n/a")
        'ReqNodeNotAvail, UnavailableNodes:n1'
    """
    words = answer.split()[2:-1]
    reason = " ".join(words).strip("()")
    return "" if reason == "None" else reason


def run_of(answer: str) -> str:
    """Which run of its job a server is part of, from the answer for a running job: its start and its node.

    A job that Slurm requeues keeps its id, and starts anew elsewhere.
    """
    words = answer.split()
    return " ".join([*words[1:2], words[-1]] if len(words) > 2 else words[1:])
