"""Why a server does not start, in words that reach its user: on the page, in the API, in the progress stream."""

from __future__ import annotations

import re

from jupyterhub.spawner import SpawnException

_SBATCH = re.compile(r"^sbatch: (?:error: )?(.+)$", re.MULTILINE)
# Errors of the way to slurmctld: the job may be there all the same.
_NO_ANSWER = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted|Unexpected message received"
    r"|Protocol authentication error|Connection (?:refused|reset|timed out)|standby mode"
    r"|Communication connection failure|Header lengths are longer|Invalid authentication credential"
    r"|Munge encode failed",
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
    """Slurm does not answer, or has no room in time: HTTP 503."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="unavailable", status_code=503)


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
    if _NO_ANSWER.search(words):
        return Unavailable(f"Slurm does not answer: {words}")
    return Refused(f"Slurm refused the job: {words}")
