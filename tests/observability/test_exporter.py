"""What an exporter says of a cluster of which everything is known: our own, or --observability-image's.

It proves no row of the checklist: somebody else's numbers say nothing of ours.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from fixtures.exporter import Exporter, note
from fixtures.observability import ObservedStart
from fixtures.truth import MIB, Truth
from slurm_testbed import SlurmCluster
from slurm_testbed.errors import NotReadyError
from slurm_testbed.pytest_plugin import note_cluster
from slurm_testbed.releases import Release
from slurm_testbed.slurm import Job

#: A stack of many containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

#: Five nodes with two processors and two stand-ins of GPUs: n1 half in use, n2 full, n3 down, n4 drained, n5 idle.
NODES, CPUS, GPUS = 5, 2, 2
STATES = {"n1": "MIXED", "n2": "ALLOCATED", "n3": "DOWN", "n4": "IDLE+DRAIN", "n5": "IDLE"}
COUNTS = {
    "jobs.running": 2,
    # One for n2, and three held tasks of an array.
    "jobs.pending": 4,
    "jobs.completed": 2,
    "jobs.failed": 1,
    "jobs.cancelled": 1,
    "jobs.out_of_memory": 1,
    "cpus.total": 10,
    "cpus.allocated": 3,
    "cpus.idle": 3,
    "nodes.idle": 1,
    "nodes.mixed": 1,
    "nodes.allocated": 1,
    "nodes.down": 1,
    "nodes.drained": 1,
    "gpus.total": 10,
    "gpus.allocated": 1,
    "gpus.idle": 9,
    "node.jobs": 1,
}
#: Holds 200 MiB, burns one of two processors, and says where the kernel has it.
KNOWN = """#!/bin/sh
cat /proc/self/cgroup > cgroup.$SLURM_JOB_ID
{ head -c 200M /dev/zero; sleep 600; } | tail &
while :; do :; done
"""
#: A partition of nodes that another has, too; and a node that is set down stays so, though it registers.
CONF = "PartitionName=half Nodes=n[1-2,5] State=UP\nReturnToService=1\n"


@dataclass(frozen=True)
class Known:
    """A cluster in a known state.

    Attributes:
        slurm: the cluster.
        job: the job of which the kernel's numbers are known, alone on its node.
        node: that node.
    """

    slurm: SlurmCluster
    job: Job
    node: str


@pytest.fixture(scope="module")
def _kit_cluster(
    request: pytest.FixtureRequest, exporter: Exporter, slurm_release: Release, pytestconfig: pytest.Config
) -> Iterator[SlurmCluster]:
    conf = {"71-known.conf": CONF}
    options = {"nodes": NODES, "cpus": CPUS, "memory": 2000}
    env = {"SLURM_NODE_GRES": f"gpu:{GPUS}", "OBSERVABILITY_INTERVAL": "1"}
    start: Callable[..., SlurmCluster]
    if exporter.image:
        hosts = ["slurmctld", *(f"n{number}" for number in range(1, NODES + 1))]
        images = dict.fromkeys(hosts, exporter.image)
        start = functools.partial(SlurmCluster, slurm_release.version, cgroups=True, images=images)
    else:
        observed_start: ObservedStart = request.getfixturevalue("observed_start")
        start = observed_start
    prolog = pytestconfig.getoption("prolog")
    if prolog:
        conf["72-prolog.conf"] = "Prolog=/etc/slurm/prolog.d/*\n"
    with start(conf=conf, env=env, **options) as slurm:
        if prolog:
            for node in slurm.nodes():
                slurm.run(["mkdir", "-p", "/etc/slurm/prolog.d"], host=node)
                script = {"/etc/slurm/prolog.d/50-observability.sh": prolog.read_bytes()}
                slurm.substrate.put(node, script, mode=0o755)
        yield slurm


@pytest.fixture(scope="module")
def known(_kit_cluster: SlurmCluster) -> Known:
    slurm = _kit_cluster
    ended = [slurm.sbatch(wrap="exit 0"), slurm.sbatch(wrap="exit 0"), slurm.sbatch(wrap="exit 1")]
    cancelled = slurm.sbatch(wrap="sleep 600")
    cancelled.wait(until={"RUNNING"})
    cancelled.cancel()
    greedy = slurm.sbatch(wrap="head -c 300M /dev/zero | tail", mem="100M")
    for job in (*ended, cancelled, greedy):
        job.wait()
    slurm.wait_idle()
    slurm.run(["scontrol", "update", "NodeName=n3", "State=DOWN", "Reason=known"])
    slurm.run(["scontrol", "update", "NodeName=n4", "State=DRAIN", "Reason=known"])
    half = slurm.sbatch(wrap="sleep 600", nodelist="n1", ntasks=1, gres="gpu:1", mem="200M")
    job = slurm.sbatch(script=KNOWN, nodelist="n2", cpus_per_task=2, mem="500M")
    for one in (half, job):
        one.wait(until={"RUNNING"})
    slurm.sbatch(wrap="true", nodelist="n2", cpus_per_task=2, mem="500M")
    slurm.sbatch(wrap="true", array="0-2", hold=True)
    truth = Truth(slurm, job, "n2")
    slurm.wait_until(
        lambda: truth.memory() > 200 * MIB, "the job to hold 200 MiB", state=lambda: str(truth.memory()), deadline=60
    )
    return Known(slurm, job, "n2")


def states(slurm: SlurmCluster) -> dict[str, str]:
    """What slurmctld says of each node, but for whether it answers."""
    return {name: re.sub(r"\*|\+NOT_RESPONDING", "", node["State"]) for name, node in slurm.nodes().items()}


@dataclass
class Comparison:
    """Compares what an exporter says with the truth, line by line of the table at the end of the run."""

    known: Known
    exporter: Exporter
    config: pytest.Config
    wrong: list[str] = field(default_factory=list)

    def exported(self, *truths: str) -> list[str]:
        """Those that it exports; of the others the table says that it does not. Without any the test is skipped."""
        for truth in truths:
            if truth not in self.exporter.selectors:
                note(self.config, truth, "", "", "not exported")
        found = [truth for truth in truths if truth in self.exporter.selectors]
        if not found:
            pytest.skip(f"not checkable here because {self.exporter.image} exports none of {', '.join(truths)}")
        return found

    def read(self, truth: str) -> float | None:
        """What it says now."""
        return self.exporter.value(self.known.slurm, truth, job=self.known.job.id, node=self.known.node)

    def judge(self, truth: str, low: float, high: float, read: float | None) -> None:
        """Say whether a value is true, and by how much it is wrong."""
        true = f"{low:.12g}" if low == high else f"{low:.12g} to {high:.12g}"
        error = 0 if read is None else min(read - low, 0) or max(read - high, 0)
        share = f" ({error / low:+.0%})" if error and low else ""
        verdict = "no such series" if read is None else f"wrong by {error:+.12g}{share}" if error else "true"
        said = "" if read is None else f"{read:.12g}"
        note(self.config, truth, true, said, verdict)
        if verdict != "true":
            self.wrong.append(f"{truth}: true {true}, read {said or 'nothing'}: {verdict}")


@pytest.fixture
def comparison(request: pytest.FixtureRequest, known: Known, exporter: Exporter, slurm_release: Release) -> Comparison:
    note_cluster(request, known.slurm, slurm_release)
    return Comparison(known, exporter, request.config)


def test_counts(comparison: Comparison) -> None:
    truths = comparison.exported(*COUNTS)
    read: dict[str, float | None] = {}

    def right() -> bool:
        read.update({truth: comparison.read(truth) for truth in truths})
        return read == {truth: COUNTS[truth] for truth in truths}

    # It may look at Slurm every so often only.
    with contextlib.suppress(NotReadyError):
        comparison.known.slurm.wait_until(right, "every number to be true", deadline=20)
    assert states(comparison.known.slurm) == STATES, "the cluster is not as it was made"
    for truth in truths:
        comparison.judge(truth, COUNTS[truth], COUNTS[truth], read[truth])
    assert comparison.wrong == []


def test_what_a_job_uses(comparison: Comparison) -> None:
    truths = comparison.exported("job.memory_bytes", "job.cpu_percent", "job.cpu_seconds")
    known = comparison.known
    kernel = Truth(known.slurm, known.job, known.node)
    # The first sample of a job has no percent.
    with contextlib.suppress(NotReadyError):
        known.slurm.wait_until(
            lambda: None not in {comparison.read(truth) for truth in truths}, "series of the job", deadline=60
        )
    if "job.memory_bytes" in truths:
        before, read, after = kernel.memory(), comparison.read("job.memory_bytes"), kernel.memory()
        low, high = sorted([before, after])
        comparison.judge("job.memory_bytes", round(0.98 * low), round(1.02 * high), read)
    reads: list[dict[str, float | None]] = []
    began, first = kernel.cpu()

    def enough() -> bool:
        reads.append({truth: comparison.read(truth) for truth in truths if truth.startswith("job.cpu")})
        return time.time() - began > 20

    known.slurm.wait_until(enough, "20 s to pass", deadline=90)
    ended, last = kernel.cpu()
    if "job.cpu_percent" in truths:
        percent = 100 * (last - first) / (ended - began) / CPUS
        shown = [value for one in reads if (value := one["job.cpu_percent"]) is not None]
        mean = round(sum(shown) / len(shown), 1) if shown else None
        # A gauge is of other seconds than these two readings.
        comparison.judge("job.cpu_percent", round(percent - 5, 1), round(percent + 5, 1), mean)
    if "job.cpu_seconds" in truths:
        # A counter: what it says last was so at some moment of these seconds.
        comparison.judge("job.cpu_seconds", round(first, 1), round(last, 1), reads[-1]["job.cpu_seconds"])
    assert comparison.wrong == []


def test_prolog_costs_no_job_while_the_exporter_is_away(comparison: Comparison, exporter: Exporter) -> None:
    slurm = comparison.known.slurm
    hosts = ["slurmctld", "n5"] if exporter.image else ["observability"]
    for host in hosts:
        slurm.substrate.service(host, exporter.service, "stop")
    try:
        job = slurm.sbatch(wrap="true", nodelist="n5")
        assert job.wait().state == "COMPLETED"
        slurm.wait_until(lambda: slurm.nodes()["n5"]["State"] == "IDLE", "the node to be idle", deadline=30)
    finally:
        for host in hosts:
            slurm.substrate.service(host, exporter.service, "start")
