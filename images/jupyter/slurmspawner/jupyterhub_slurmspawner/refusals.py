"""Why a server does not start, in words that reach its user: on the page, in the API, in the progress stream."""

from __future__ import annotations

import re

from jupyterhub.spawner import SpawnException

_SBATCH = re.compile(r"^sbatch: (?:error: )?(.+)$", re.MULTILINE)
# Errors of the way to slurmctld, before the request was sent, and after:
# https://github.com/SchedMD/slurm/blob/master/src/common/slurm_errno.c
_NOT_SENT = re.compile(
    r"\(connect failure\)|Protocol authentication error|Munge encode failed|Invalid authentication credential"
    r"|Connection refused|standby mode",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted|Unexpected message received"
    r"|Connection (?:reset|timed out)|Communication connection failure|Header lengths are longer",
    re.IGNORECASE,
)


class NotStarted(SpawnException):  # type: ignore[misc] # JupyterHub has no types
    """A server that does not start.

    Args:
        message: what the user reads.
        reason: a label for the hub's metrics.
        status_code: of the answer.
    """

    def __init__(self, message: str, *, reason: str, status_code: int) -> None:
        super().__init__(message, reason=reason, status_code=status_code)
        # The pages and the stream of progress show a message of this name alone.
        self.jupyterhub_message = message


class Refused(NotStarted):
    """What was asked for cannot be had: HTTP 400."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="refused", status_code=400)


class Unavailable(NotStarted):
    """Slurm does not answer, or has no room in time: HTTP 503.

    Attributes:
        perhaps: whether there may be a job all the same.
    """

    def __init__(self, message: str, *, perhaps: bool = True) -> None:
        super().__init__(message, reason="unavailable", status_code=503)
        self.perhaps = perhaps


class Ended(NotStarted):
    """The job ended before its server answered: HTTP 500."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="ended", status_code=500)


def refusal(stderr: str) -> NotStarted | None:
    """What sbatch's error is to the user.

    Args:
        stderr: what sbatch printed.

    Returns:
        Refused with sbatch's own words, Unavailable where slurmctld did not answer, and None where sbatch itself
        did not run.

    Example:
        >>> str(refusal("sbatch: error: Batch job submission failed: Invalid qos specification").message)
        'Slurm refused the job: Batch job submission failed: Invalid qos specification'
    """
    words = "; ".join(_SBATCH.findall(stderr))
    if not words:
        return None
    if _NOT_SENT.search(words) or _NO_ANSWER.search(words):
        return Unavailable(f"Slurm does not answer: {words}", perhaps=not _NOT_SENT.search(words))
    return Refused(f"Slurm refused the job: {words}")
