"""What goes wrong, each with a sentence for people: the cause, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from app_sessions.schema import Error, ErrorBody


class AppSessionsError(Exception):
    """Something that the service's own words explain."""


class Refusal(AppSessionsError):  # noqa: N818  # no fault of ours
    """A request is refused.

    Args:
        status: HTTP's.
        code: for programs, e.g. `session_not_found`.
        message: for people: the cause, and what to do.
        headers: of the answer.

    Example:
        >>> Refusal(404, "session_not_found", "there is no session 7").code
        'session_not_found'
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def body(self) -> bytes:
        """The answer's body."""
        return Error(error=ErrorBody(code=self.code, message=self.message)).model_dump_json().encode()


class SlurmError(AppSessionsError):
    """Slurm refuses, or does not answer; the text has its own words."""


class SlurmAwayError(SlurmError):
    """Slurm does not answer.

    Args:
        message: what was tried, and what was said.
        perhaps: whether the request may have arrived all the same.
    """

    def __init__(self, message: str, *, perhaps: bool = False) -> None:
        super().__init__(message)
        self.perhaps = perhaps
