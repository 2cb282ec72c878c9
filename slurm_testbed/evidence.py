"""What is kept of a cluster when a test fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.slurm import Slurm

#: Lines of each log that are kept.
TAIL = 40
#: Where clusters that an error ends leave their evidence; nowhere outside of a test.
_GATHERED: ContextVar[list[tuple[str, str]] | None] = ContextVar("gathered", default=None)


def collect(slurm: Slurm) -> list[tuple[str, str]]:
    """Titles and texts: queue, nodes, and the tails of the daemons' logs.

    Example:
        >>> [title for title, _ in collect(slurm)]  # doctest: +SKIP
        ['squeue', 'sinfo', 'slurmctld on slurm-1f2e', 'slurmd on slurm-1f2e', ...]
    """
    found: list[tuple[str, str]] = []
    for command in (["squeue", "--all", "--states=all"], ["sinfo", "--list-reasons", "--Node", "--long"]):
        try:
            done = slurm.run(command, check=False)
            found.append((command[0], done.stdout + done.stderr))
        except SlurmTestbedError as error:
            found.append((command[0], str(error)))
    for host in slurm.substrate.hosts():
        for daemon in sorted(host.daemons & {"slurmctld", "slurmd", "slurmdbd", "slurmrestd"}):
            try:
                lines = slurm.substrate.logs(host.name, daemon).splitlines()
            except SlurmTestbedError as error:
                lines = [str(error)]
            found.append((f"{daemon} on {host.name}", "\n".join(lines[-TAIL:])))
    return found


@contextlib.contextmanager
def gathered() -> Iterator[list[tuple[str, str]]]:
    """Collect from every cluster whose `with` block is left by an error meanwhile, before it is removed.

    Example:
        >>> with gathered() as found:  # doctest: +SKIP
        ...     test()
    """
    found: list[tuple[str, str]] = []
    token = _GATHERED.set(found)
    try:
        yield found
    finally:
        _GATHERED.reset(token)


def leave(slurm: Slurm, error: BaseException | None) -> None:
    """Called where a cluster's `with` block ends: keep its evidence if an error ended it and somebody gathers."""
    found = _GATHERED.get()
    if found is not None and isinstance(error, Exception):
        found += collect(slurm)
