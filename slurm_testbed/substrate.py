"""The seam between a cluster and what carries it: container, compose stack or Kubernetes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

#: Daemons that a host of a cluster can run.
Daemon = Literal["munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmrestd"]


@dataclass(frozen=True)
class Host:
    """One host of a cluster and the daemons that it runs."""

    name: str
    daemons: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Facts:
    """What the substrate can do, so that a test can say why it is not checkable here.

    Attributes:
        kind: `single`, `cluster` or `kubernetes`.
        cgroup: the cgroup version that is enforced: `v1`, `v2` or `none`.
        speed: how many times slower than an ordinary machine; every deadline is multiplied by it.
        capabilities: names of Linux capabilities that the hosts have, without `CAP_`.
    """

    kind: str
    cgroup: str = "none"
    speed: float = 1.0
    capabilities: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Attach:
    """How a process of the caller's machine runs a command on a host with its own standard streams.

    Attributes:
        command: the program with its subcommand; options such as `--user` may follow.
        target: what stands before the command that is run.
        env: variables that the program needs.
    """

    command: tuple[str, ...]
    target: str
    env: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Substrate(Protocol):
    """What `Slurm` needs to know of the place where its daemons run."""

    def hosts(self) -> Sequence[Host]:
        """Every host, controller first."""

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and return it with its exit status, output and error output."""

    def put(self, host: str, files: Mapping[str, bytes], *, mode: int = 0o644, owner: str = "root") -> None:
        """Write files, by absolute path, with the given mode and owner (`user` or `user:group`)."""

    def logs(self, host: str, daemon: str | None = None) -> str:
        """The log of one daemon, or of the host's start when no daemon is named."""

    def attach(self, host: str) -> Attach:
        """How to run a command on a host from a shell, with the caller's standard streams."""

    def endpoint(self, role: str, port: int) -> tuple[str, int]:
        """Host name and port at which the caller reaches a role's port."""

    def service(self, host: str, daemon: str, action: Literal["stop", "start", "kill"]) -> None:
        """Stop, start or kill one daemon of a host, and wait until that is done."""

    def network(self, host: str, action: Literal["cut", "restore"]) -> None:
        """Take a host off the cluster's network, or bring it back."""

    def add_node(self, name: str, conf: str) -> None:
        """Start one more slurmd, as a dynamic node with that configuration: slurmd(8), `-Z` and `--conf`."""

    def remove_node(self, name: str) -> None:
        """End the slurmd of a dynamic node, and remove what carries it."""

    def facts(self) -> Facts:
        """What is enforced here and how fast it is."""
