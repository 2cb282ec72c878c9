"""Every measure, with its rows and goals."""

from __future__ import annotations

import re

from slurm_testbed.bench import builds, clusters, hub, observability, work
from slurm_testbed.bench.figures import Goal, Row
from slurm_testbed.bench.measure import Measure
from slurm_testbed.bench.work import REQUESTS, THREADS
from slurm_testbed.errors import UsageError


def _goal(limit: float) -> tuple[Goal, ...]:
    return (Goal("median", limit),)


def _cluster_measures() -> list[Measure]:
    start = Row("start", "docker run → srun done")
    start.goals = (
        Goal("median", 0.8, over_bare=True),
        Goal("p99", 2.0, over_bare=True, least=100),
        Goal("failed", 0, least=500),
    )
    without = Row("start-no-accounting", "docker run → srun done, without accounting")
    without.goals = (Goal("median", 0.3, over_bare=True),)
    first = (
        Row("first-sbatch", "first sbatch: accepted → COMPLETED", _goal(1.0)),
        Row("first-sacct", "first sbatch: accepted → COMPLETED in sacct"),
        Row("start-first-sbatch", "docker run → first sbatch COMPLETED"),
        Row("start-first-sacct", "docker run → first sbatch COMPLETED in sacct"),
    )
    nodes = (
        Row("nodes-256", "docker run → 256 nodes idle", _goal(8)),
        Row("nodes-256-srun", "srun over 256 nodes", count=256),
        Row("nodes-256-memory", "memory of a node among 256", unit="MB"),
    )
    hosts = (
        Row("hosts", "SlurmCluster of 2 nodes → srun done", _goal(4)),
        Row("hosts-node", "each further node of it", _goal(0.3)),
    )
    stop = Row("stop", "docker stop → exited with 0", (Goal("p99", 3.0),))
    return [
        Measure("start", 100, (start,), clusters.start("yes", start.name)),
        Measure("start-no-accounting", 20, (without,), clusters.start("no", without.name)),
        Measure("first", 20, first, clusters.first),
        Measure("stop", 10, (stop,), clusters.stop),
        Measure("nodes-256", 3, nodes, clusters.nodes(256)),
        Measure("hosts", 5, hosts, clusters.hosts),
    ]


def _work_measures() -> list[Measure]:
    trip = Row("round-trip", "lone sbatch: called → COMPLETED")
    singles = (
        Row("sbatch-200-accepted", "200 sbatch: all accepted", count=200),
        Row("sbatch-200", "200 sbatch: all COMPLETED", _goal(8), count=200),
    )
    array_200 = Row("array-200", "array of 200: sbatch → COMPLETED", _goal(5), count=200)
    array_1000 = Row("array-1000", "array of 1,000: sbatch → COMPLETED", count=1000)
    large = {
        count: (
            Row(f"array-{count}", f"array of {count:,}: sbatch → COMPLETED", count=count),
            Row(f"array-{count}-memory", f"array of {count:,}: memory of slurmctld and slurmd", unit="MB"),
        )
        for count in (1024, 10_000)
    }
    rest = tuple(
        Row(f"rest-{path}-{n}", f"{REQUESTS} GET {path}, {said}", count=REQUESTS)
        for n, said in ((1, "one connection"), (THREADS, f"{THREADS} threads"))
        for path in ("ping", "jobs")
    )
    return [
        Measure("round-trip", 20, (trip,), work.round_trip),
        Measure("sbatch-200", 3, singles, work.single_jobs),
        Measure("array-200", 3, (array_200,), work.array(200)),
        Measure("array-1000", 3, (array_1000,), work.array(1000)),
        Measure("array-1024", 1, large[1024], work.array(1024)),
        Measure("array-10000", 1, large[10_000], work.array(10_000), on_demand=True),
        Measure("rest", 5, rest, work.rest),
    ]


def _image_measures() -> list[Measure]:
    sizes = (
        Row("size-client", "slurm-client, uncompressed", _goal(120), "MB"),
        Row("size-single-node", "slurm-single-node, uncompressed", _goal(190), "MB"),
        Row("size-client-compressed", "slurm-client, compressed", _goal(45), "MB"),
        Row("size-single-node-compressed", "slurm-single-node, compressed", _goal(70), "MB"),
    )
    cold = Row("build-cold", "build, all caches empty", _goal(300))
    warm = Row("build-warm", "build, nothing changed", _goal(3))
    line = Row("build-entrypoint", "build, a line of the entry point changed", _goal(5))
    return [
        Measure("sizes", 1, sizes, builds.sizes, fixed=True),
        Measure("build-cold", 1, (cold,), builds.build_cold, fixed=True, on_demand=True),
        Measure("build-warm", 3, (warm,), builds.build_warm, on_demand=True),
        Measure("build-entrypoint", 3, (line,), builds.build_entrypoint, on_demand=True),
    ]


def _observability_measures() -> list[Measure]:
    rows = (
        Row("observability-script", "prolog or epilog, over an empty script", _goal(10), "ms"),
        Row("observability-visible", "job starts → the service shows it", _goal(500), "ms"),
        Row("observability-agent", f"agent with {observability.JOBS} jobs: of a core", _goal(1), "%"),
        Row("observability-scrape", f"GET /metrics with {observability.SCRAPED:,} jobs", _goal(50), "ms"),
    )
    array = Row(
        "observability-array", f"array of {observability.ARRAY:,}: sbatch → its events are all there", _goal(60)
    )
    array.count = observability.ARRAY
    # Their images are not those that `invoke build` makes by itself.
    return [
        Measure("observability", 3, rows, observability.observability, on_demand=True),
        Measure("observability-array", 1, (array,), observability.array, on_demand=True),
    ]


def _hub_measures() -> list[Measure]:
    rows = (
        Row("spawn", "spawn of a server: asked → it answers its API", _goal(4)),
        Row("spawn-job", "of that: asked → its job is on the node"),
        Row("spawn-lab", "of that: its job is there → JupyterLab has begun"),
        Row("spawn-seen", "of that: it has begun → the hub's proxy reaches it"),
    )
    together = Row("spawn-10", f"{len(hub.USERS)} users at once → the last server answers")
    together.count = len(hub.USERS)
    return [
        Measure("spawn", 10, rows, hub.spawn, on_demand=True),
        Measure("spawn-10", 3, (together,), hub.together, on_demand=True),
    ]


def catalogue() -> dict[str, Measure]:
    """Every measure by name, with rows that are empty yet.

    Example:
        >>> list(catalogue())[:3]
        ['start', 'start-no-accounting', 'first']
    """
    measures = [
        *_cluster_measures(),
        *_work_measures(),
        *_observability_measures(),
        *_hub_measures(),
        *_image_measures(),
    ]
    return {measure.name: measure for measure in measures}


def choose(only: str = "", *, build: bool = False) -> list[Measure]:
    """The measures that are asked for, in the catalogue's order.

    Args:
        only: their names, separated by commas; empty for all.
        build: with the builds, which a run without `only` leaves out.

    Raises:
        UsageError: there is no measure of such a name.

    Example:
        >>> [measure.name for measure in choose("stop,start")]
        ['start', 'stop']
    """
    known = catalogue()
    asked = {name for name in re.split(r"[,\s]+", only) if name}
    if unknown := sorted(asked - set(known)):
        raise UsageError(f"no measure {', '.join(unknown)}; there are {', '.join(known)}")
    builds = {name for name in known if name.startswith("build-")} if build else set()
    chosen = (asked | builds) if asked else builds | {n for n, m in known.items() if not m.on_demand}
    return [measure for name, measure in known.items() if name in chosen]
