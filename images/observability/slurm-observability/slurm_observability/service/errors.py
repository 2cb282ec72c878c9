"""Refusals: an HTTP status, a code for programs, a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping

from slurm_observability.schema import Error, ErrorBody


class Refusal(Exception):  # noqa: N818  # no fault of ours
    """A request is refused.

    Args:
        status: HTTP's.
        code: for programs, e.g. `job_not_found`.
        message: for people: the cause, and what to do.
        headers: of the answer.

    Example:
        >>> Refusal(404, "job_not_found", "there is no job 7").code
        'job_not_found'
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def body(self) -> bytes:
        """The answer's body."""
        return Error(error=ErrorBody(code=self.code, message=self.message)).model_dump_json().encode()
