"""How a build says what goes on: a line at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable

Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """Say a line on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
