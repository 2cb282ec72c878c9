"""How many times slower than this machine the guest is: the same work on both."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from slurm_testbed.errors import SlurmTestbedError

#: What starting a cluster mostly is: a shell that counts, and processes that start. Prints nanoseconds.
WORK = """
begin=$(date +%s%N)
i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done
i=0; while [ $i -lt 60 ]; do /bin/true; i=$((i + 1)); done
echo $(($(date +%s%N) - begin))
"""
_SAMPLES = 3
#: What `measure` may take; an ordinary machine takes a tenth of a second.
SECONDS = 5


def measure(in_guest: Callable[[str], str], here: list[str]) -> float:
    """Measure the factor by which every deadline is multiplied: never below 1.

    This machine's quickest sample counts and the guest's slowest, so that the factor holds under load as well.

    Args:
        in_guest: runs a shell script in the guest and returns what it printed.
        here: the guest's shell as a program of this machine.

    Raises:
        SlurmTestbedError: the work cannot be done here.
    """
    quickest = min(_here(here) for _ in range(_SAMPLES))
    slowest = max(int(in_guest(WORK)) for _ in range(_SAMPLES))
    return max(1.0, round(slowest / quickest, 1))


def _here(shell: list[str]) -> int:
    done = subprocess.run([*shell, "-c", WORK], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlurmTestbedError(f"this machine's speed cannot be measured: {done.stderr.strip()}")
    return int(done.stdout)
