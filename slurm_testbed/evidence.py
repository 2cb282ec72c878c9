"""What is kept of a cluster when a test fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec

from slurm_testbed.errors import NotStartedError
from slurm_testbed.slurm import Slurm

P = ParamSpec("P")

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
    found = [
        (command[0], _said(_output, slurm, command))
        for command in (["squeue", "--all", "--states=all"], ["sinfo", "--list-reasons", "--Node", "--long"])
    ]
    try:
        hosts = slurm.substrate.hosts()
    except NotStartedError:  # it is not started, as the commands have said
        return found
    for host in hosts:
        for daemon in sorted(host.daemons & {"slurmctld", "slurmd", "slurmdbd", "slurmrestd"}):
            lines = _said(slurm.substrate.logs, host.name, daemon).splitlines()
            found.append((f"{daemon} on {host.name}", "\n".join(lines[-TAIL:])))
    return found


def _output(slurm: Slurm, command: list[str]) -> str:
    done = slurm.run(command, check=False)
    return done.stdout + done.stderr


def _said(ask: Callable[P, str], *arguments: P.args, **more: P.kwargs) -> str:
    """What is found out, or why not: the failure that is reported must not be hidden by one of the report."""
    try:
        return ask(*arguments, **more)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


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
