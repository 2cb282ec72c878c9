"""What Slurm's prologs and epilogs leave for the agent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat

import hostlist

from slurm_observability.schema import Source

_SPAN = re.compile(r"(\d+)(?:\(x(\d+)\))?")


class RecordError(ValueError):
    """A record cannot be used; the text says why."""


@dataclass(frozen=True)
class Record:
    """What one run of a script left.

    Attributes:
        name: its file's name, JOB.KIND.UPTIME.PID.
        source: which of the four scripts it was.
        values: the variables that Slurm gave it.
        written_ns: when, in nanoseconds since 1970.

    Example:
        >>> record = Record.parse("7.prolog.12.34.99", b"KIND=prolog\\0SLURM_JOB_ID=7\\0END=1\\0", written_ns=10**18)
        >>> record.job_id, record.source.value, record.key("n1")
        (7, 'prolog', 'n1-7.prolog.12.34.99-1000000000000000000')
    """

    name: str
    source: Source
    values: Mapping[str, str]
    written_ns: int

    @classmethod
    def parse(cls, name: str, data: bytes, *, written_ns: int) -> Record:
        """Read a record as `50-observability.sh` writes it.

        Raises:
            RecordError: it is cut off, or none of ours.
        """
        pairs = (field.partition("=") for field in data.decode(errors="replace").split("\0") if field)
        values = {key: value for key, _, value in pairs}
        if "END" not in values:
            raise RecordError("it is cut off: was the disk full?")
        try:
            source = Source(values["KIND"])
            int(values["SLURM_JOB_ID"])
        except (KeyError, ValueError) as error:
            raise RecordError(f"it is no record of a prolog or an epilog: {error}") from error
        return cls(name, source, values, written_ns)

    @property
    def job_id(self) -> int:
        return int(self.values["SLURM_JOB_ID"])

    @property
    def timestamp(self) -> datetime:
        return datetime.fromtimestamp(self.written_ns / 1e9, UTC)

    @property
    def is_start(self) -> bool:
        """Whether a prolog left it, and not an epilog."""
        return self.source in {Source.PROLOG, Source.PROLOG_SLURMCTLD}

    @property
    def of_slurmctld(self) -> bool:
        """Whether slurmctld ran the script, and not a node's slurmd."""
        return self.source in {Source.PROLOG_SLURMCTLD, Source.EPILOG_SLURMCTLD}

    @property
    def node(self) -> str | None:
        """The node whose slurmd ran the script; None for slurmctld's, and for one that was run by hand."""
        return self.values.get("SLURMD_NODENAME")

    @property
    def nodes(self) -> list[str]:
        """The job's nodes, in Slurm's order.

        Raises:
            RecordError: there is no such list.
        """
        # 22.05's and older slurmds name it SLURM_NODELIST alone.
        text = self.values.get("SLURM_JOB_NODELIST") or self.values.get("SLURM_NODELIST", "")
        return expand(text)

    @property
    def is_first_host(self) -> bool:
        """Whether this host is the one that speaks for the job: one of its hosts does, or slurmctld's."""
        if self.of_slurmctld:
            return True
        if self.node is None:
            # By hand, as the guide does it.
            return self.values.get("SLURM_NODEID", "0") == "0"
        return self.nodes[:1] in ([], [self.node])

    @property
    def restarts(self) -> int | None:
        return self.number("SLURM_JOB_RESTART_COUNT")

    @property
    def cpus_per_node(self) -> list[int]:
        """The job's CPUs on each of its nodes; empty where Slurm did not say."""
        return expand_counts(self.values.get("SLURM_JOB_CPUS_PER_NODE", ""))

    @property
    def cpus_here(self) -> int | None:
        """The job's CPUs on the node that ran the script."""
        counts = self.cpus_per_node
        nodes = self.nodes
        if self.node in nodes and len(counts) == len(nodes):
            return counts[nodes.index(self.node)]
        return None

    @property
    def gpus_here(self) -> list[str]:
        """The job's GPUs on the node that ran the script, as gres.conf counts them."""
        return list(filter(None, self.values.get("SLURM_JOB_GPUS", "").split(",")))

    @property
    def exit_status(self) -> tuple[int, int] | None:
        """Exit code and signal; None where Slurm did not say.

        SLURM_JOB_EXIT_CODE2 is `exit:signal`, SLURM_JOB_EXIT_CODE the status of wait(2):
        https://slurm.schedmd.com/prolog_epilog.html
        """
        if match := re.fullmatch(r"(\d+):(\d+)", self.values.get("SLURM_JOB_EXIT_CODE2", "")):
            return int(match[1]), int(match[2])
        status = self.number("SLURM_JOB_EXIT_CODE")
        return None if status is None else (status >> 8 & 0xFF, status & 0x7F)

    def key(self, host: str) -> str:
        """The idempotency key of the event that this record is, the same at every attempt to send it."""
        return f"{self.node or host}-{self.name}-{self.written_ns}"[:200]

    def number(self, name: str) -> int | None:
        """A variable that is a number; None where it is not set."""
        text = self.values.get(name, "")
        return int(text) if text.isdecimal() else None


def expand(nodes: str) -> list[str]:
    """The names that a list of Slurm's stands for.

    Raises:
        RecordError: it is no such list.

    Example:
        >>> expand("n[1-2],gpu07")
        ['n1', 'n2', 'gpu07']
    """
    if not nodes:
        return []
    try:
        return list(hostlist.expand_hostlist(nodes))
    except hostlist.BadHostlist as error:
        raise RecordError(f"not a list of nodes: {nodes}: {error}") from error


def expand_counts(counts: str) -> list[int]:
    """The numbers that Slurm's short form stands for; none where it is another form.

    Example:
        >>> expand_counts("4(x2),1")
        [4, 4, 1]
    """
    found: list[int] = []
    for part in filter(None, counts.split(",")):
        match = _SPAN.fullmatch(part)
        if not match:
            return []
        found += repeat(int(match[1]), int(match[2] or 1))
    return found
