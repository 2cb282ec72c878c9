"""A pytest plugin of a cell: ends it as by Ctrl-C when the matrix is gone, so that it removes its clusters.

The matrix holds the other end of the cell's standard input, and the kernel closes it whatever the matrix died of. The
kernel's own signal for it (prctl(2), PR_SET_PDEATHSIG) comes once for each thread of the matrix, and a second one cuts
the cleaning short.
"""

from __future__ import annotations

import os
import signal
import threading

# Now, for pytest puts another file in its place before the tests begin.
_MATRIX = os.dup(0)


def pytest_configure() -> None:
    """Start to watch."""
    threading.Thread(target=_end_with_the_matrix, daemon=True, name="watch the matrix").start()


def _end_with_the_matrix() -> None:
    os.read(_MATRIX, 1)  # nothing is ever written: this is the end
    os.kill(os.getpid(), signal.SIGINT)
