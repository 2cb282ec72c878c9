"""Dynamic nodes as jobs need them: one more while jobs wait for room, one less when it has had nothing to do."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from slurm_testbed.errors import NotReadyError, SlurmTestbedError, UsageError
from slurm_testbed.slurm import Slurm, is_idle

#: Reasons of pending jobs that a further node may end: squeue(1), JOB REASON CODES.
_WANT_NODES = ("Resources", "Priority", "ReqNodeNotAvail", "Nodes required for job are DOWN")
#: Seconds in which the scheduler has looked at a node that is new: its cycles begin each second (bf_interval).
_SETTLED = 3.0
#: Seconds between two looks at the queue.
_PAUSE = 1.0


class Autoscaler:
    """Adds dynamic nodes to a cluster while jobs wait for room, and removes those that stay idle.

    What Slurm's power saving does for nodes that slurm.conf names, for nodes that it does not:
    https://slurm.schedmd.com/dynamic_nodes.html. It looks at the queue from a thread of its own. A job that asks for
    more than the cluster has ever had waits for nothing: sbatch refuses it.

    Args:
        slurm: a running cluster of a release with dynamic nodes.
        max_nodes: how many nodes it adds at most; slurmctld's MaxNodeCount bounds it, too.
        idle: seconds after which an idle node leaves.
        conf: the nodes' configuration as in slurm.conf(5), `CPUs=4 Feature=x`; by default what slurmd finds.
        prefix: of the nodes' names.
        say: takes a line for each node that joins or leaves, and for what Slurm refuses.

    Raises:
        UsageError: fewer than one node, or less than no seconds; on entering, a release without dynamic nodes.

    Example:
        >>> with Autoscaler(slurm, max_nodes=2, idle=10):  # doctest: +SKIP
        ...     jobs = [slurm.sbatch(wrap="hostname", exclusive=True) for _ in range(3)]
        ...     {job.wait().state for job in jobs}
        {'COMPLETED'}
    """

    def __init__(
        self,
        slurm: Slurm,
        *,
        max_nodes: int = 4,
        idle: float = 60,
        conf: str = "",
        prefix: str = "auto",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        if max_nodes < 1 or idle < 0:
            raise UsageError(
                f"an autoscaler of {max_nodes} nodes that leave after {idle} s", hint="at least 1 node, and 0 s"
            )
        self.slurm = slurm
        self.max_nodes = max_nodes
        self.idle = idle
        self.conf = conf
        self.prefix = prefix
        self.say = say
        self._idle_since: dict[str, float | None] = {}
        self._added = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autoscaler", daemon=True)

    @property
    def nodes(self) -> list[str]:
        """The nodes that it has added and not removed."""
        return sorted(self._idle_since)

    def look(self) -> None:
        """Look at the queue once, and add or remove what is needed.

        Raises:
            SlurmTestbedError: Slurm does not answer, or refuses a node.
        """
        now = time.monotonic()
        script = "squeue --noheader --all --states=PENDING --format=%r"
        reasons = self.slurm.run(script.split()).stdout.splitlines()
        waiting = sum(reason.lstrip("(").startswith(_WANT_NODES) for reason in reasons)
        states = self.slurm.nodes() if waiting or self._idle_since else {}
        for name in self._idle_since.keys() - states.keys():  # somebody else removed it
            del self._idle_since[name]
        if waiting and len(self._idle_since) < self.max_nodes and now - self._added > _SETTLED:
            self._add(waiting, states.keys())
        for name, since in list(self._idle_since.items()):
            if name not in states:  # it has just joined
                continue
            idle = is_idle(states[name].get("State", ""))
            self._idle_since[name] = (since or now) if idle else None
            if idle and since is not None and now - since >= self.idle and not waiting:
                self._remove(name)

    def _add(self, waiting: int, taken: Collection[str]) -> None:
        name = next(name for n in itertools.count(1) if (name := f"{self.prefix}{n}") not in taken)
        try:
            self.slurm.add_node(name, conf=self.conf)
        finally:
            self._added = time.monotonic()
        self._idle_since[name] = None
        self.say(f"{name} joined: {waiting} {'jobs wait' if waiting > 1 else 'job waits'} for room")

    def _remove(self, name: str) -> None:
        try:
            self.slurm.remove_node(name, deadline=2)
        except NotReadyError:  # a job came meanwhile: the node stays, and takes more
            self.slurm.run(["scontrol", "update", f"NodeName={name}", "State=RESUME"])
            return
        del self._idle_since[name]
        self.say(f"{name} left: idle for {self.idle:g} s")

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE):
            try:
                self.look()
            except SlurmTestbedError as error:  # slurmctld may be back at the next look
                self.say(f"the autoscaler goes on: {error}")

    def __enter__(self) -> Self:
        self.slurm.require_dynamic_nodes()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking. Nodes that have no job leave; the others stay until the cluster ends."""
        self._ended.set()
        self._thread.join()
        for name in self.nodes:
            try:
                self._remove(name)
            except SlurmTestbedError as refusal:  # which must not hide what ended the block
                self.say(f"{name} stays: {refusal}")
