"""What is kept of a cluster when a test fails."""

from __future__ import annotations

from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.slurm import Slurm

#: Lines of each log that are kept.
TAIL = 40


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
