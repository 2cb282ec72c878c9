"""What a session can end with, besides the application's own end: one sentence, and an exit status for each kind."""

from __future__ import annotations

#: sysexits.h(3head) has the numbers.
USAGE, NO_APPLICATION, BROKEN, NO_DISPLAY, PORT_TAKEN, NO_PASSWORD = 64, 69, 70, 71, 75, 77


class Problem(Exception):  # noqa: N818  # it is what a person reads
    """Why a session does not start, or ended, in one sentence that says what to do about it.

    Args:
        text: the sentence.
        status: the exit status.

    Example:
        >>> raise Problem("port 6080 is taken: give another one as VNC_PORT", PORT_TAKEN)
        Traceback (most recent call last):
        viz_app.problem.Problem: port 6080 is taken: give another one as VNC_PORT
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status
