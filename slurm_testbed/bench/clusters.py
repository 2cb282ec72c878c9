"""The measures of a cluster's start and end."""

from __future__ import annotations

import time
from collections.abc import Callable

from slurm_testbed.bench.inside import Bench, a_moment, memory, timed
from slurm_testbed.bench.measure import Samples
from slurm_testbed.compose import SlurmCluster
from slurm_testbed.container import ContainerSubstrate
from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.slurm import Slurm

_SRUN = "slurm-ready --wait 60 > /dev/null; srun true; mark srun"

_FIRST = """
slurm-ready --wait 60 > /dev/null
! read -r -t {pause} -u "$nap"
job=$(sbatch --parsable --wrap=hostname); mark accepted
await 60 0.02 "the first job to be over" over "$job"; mark completed; completed "$job"
await 60 0.02 "the first job's accounting" accounted "$job"; mark accounted; completed "$job"
"""


def start(accounting: str, row: str) -> Callable[[Bench], Samples]:
    """From `docker run` to the end of the first srun; the sample goes to the row."""

    def samples(bench: Bench) -> Samples:
        while True:
            yield {row: bench.from_start(_SRUN, SLURM_ACCOUNTING=accounting)["srun"]}

    return samples


def first(bench: Bench) -> Samples:
    """The first batch job of a cluster: from its acceptance, and from `docker run`."""
    while True:
        pause = a_moment()
        marks = bench.from_start(_FIRST.format(pause=pause))
        yield {
            "first-sbatch": marks["completed"] - marks["accepted"],
            "first-sacct": marks["accounted"] - marks["accepted"],
            "start-first-sbatch": marks["completed"] - pause,
            "start-first-sacct": marks["accounted"] - pause,
        }


_NODES = """
slurm-ready --wait 120 > /dev/null; mark idle
srun --nodes={count} true; mark srun
"""


def nodes(count: int) -> Callable[[Bench], Samples]:
    """A cluster of so many virtual nodes in one container."""

    def samples(bench: Bench) -> Samples:
        settings = {"SLURM_NODES": str(count), "SLURM_TESTBED_DEADLINE": "120"}
        while True:
            with bench.container(environment=settings) as (began, container):
                slurm = Slurm(ContainerSubstrate(container))
                marks = timed(slurm, _NODES.format(count=count))
                size = memory(slurm, "slurmd") / count
            yield {
                f"nodes-{count}": marks["idle"] - began,
                f"nodes-{count}-srun": marks["srun"] - marks["idle"],
                f"nodes-{count}-memory": size,
            }

    return samples


def stop(bench: Bench) -> Samples:
    """From `docker stop` to the end of a cluster on which a job has run."""
    while True:
        with bench.cluster() as slurm:
            slurm.srun("true")
            began = time.perf_counter()
            slurm.container.stop(timeout=30)
            seconds = time.perf_counter() - began
            slurm.container.reload()
            status = slurm.container.attrs["State"]["ExitCode"]
            if status:
                raise SlurmTestbedError(f"a stopped cluster exited with {status}, not with 0")
        yield {"stop": seconds}


def hosts(bench: Bench) -> Samples:
    """Clusters of several hosts, of few nodes and of more: until the first job is over, and what each node adds."""
    few, many = 2, 10
    while True:
        seconds = {}
        for nodes in (few, many):
            began = time.perf_counter()
            with SlurmCluster(bench.release.version, nodes=nodes) as slurm:
                slurm.srun("true")
                seconds[nodes] = time.perf_counter() - began
        yield {"hosts": seconds[few], "hosts-node": (seconds[many] - seconds[few]) / (many - few)}
