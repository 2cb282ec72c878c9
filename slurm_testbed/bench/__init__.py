"""How fast starts, jobs, REST, stops and builds are, against a bare `docker run … true` of the same run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import docker
import docker.errors
import requests
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from slurm_testbed import data, engine, images
from slurm_testbed.container import ContainerSubstrate, SlurmContainer
from slurm_testbed.errors import EngineError, SlurmTestbedError, UsageError
from slurm_testbed.releases import Release, Releases
from slurm_testbed.rest import Rest
from slurm_testbed.slurm import Slurm

Unit = Literal["s", "MB"]
Verdict = Literal["met", "missed", "undecided"]

#: How many bare starts are measured before everything else.
BARE_STARTS = 20
#: This many failures one after another end a measure.
FAILURES_IN_A_ROW = 3
#: Requests of one sample of slurmrestd, and how many threads share them.
REQUESTS = 100
THREADS = 4
#: Jobs that slurmrestd lists when it is asked for jobs.
LISTED_JOBS = 20
#: The images that are built, as the goal of a cold build names them.
BUILT = ("base", "slurm-client", "slurm-single-node")
USER = "alice"


# --- numbers and goals -----------------------------------------------------------------------------------


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent of the samples do not exceed (nearest rank).

    Args:
        samples: at least one; of fewer than 100 the 99th percentile is the largest.
        percent: above 0, at most 100.

    Example:
        >>> percentile([3, 1, 2], 99), percentile(range(1, 101), 99)
        (3, 99)
    """
    ordered = sorted(samples)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


@dataclass(frozen=True)
class Goal:
    """What a row should come to on a quiet machine with 2 cores.

    Attributes:
        statistic: of which value: `median`, `p99`, or `failed`, the number of failed samples.
        limit: the largest value that meets it, in the row's unit.
        over_bare: whether a bare start is taken off first.
        least: samples that it takes to call it met; a miss needs no more than one.
    """

    statistic: Literal["median", "p99", "failed"]
    limit: float
    over_bare: bool = False
    least: int = 1

    def value(self, row: Row, bare: float | None) -> float | None:
        """What the row came to; None where it has no samples, or no bare start to compare with."""
        if self.statistic == "failed":
            return float(len(row.failures)) if row.attempts else None
        found = row.median if self.statistic == "median" else row.p99
        if found is None or not self.over_bare:
            return found
        return None if bare is None else found - bare

    def verdict(self, row: Row, bare: float | None) -> Verdict:
        """Whether the row meets it; undecided where nothing, or too little, was measured."""
        found = self.value(row, bare)
        if found is None:
            return "missed" if row.failures else "undecided"
        if found > self.limit:
            return "missed"
        enough = row.attempts if self.statistic == "failed" else len(row.samples)
        return "met" if enough >= self.least else "undecided"

    def text(self, unit: Unit) -> str:
        """The goal in words."""
        if self.statistic == "failed":
            return f"{self.limit:g} failed of {self.least}"
        what = "" if unit == "MB" else f"{self.statistic} "
        return f"{what}≤ {self.limit:g} {unit}{' over bare' if self.over_bare else ''}"


@dataclass
class Row:
    """One line of the table: samples of one quantity.

    Attributes:
        name: short, for JSON.
        title: what is measured, in words.
        goals: what it should come to.
        unit: of the samples.
        count: how many jobs or requests one sample is of.
        samples: what was measured.
        failures: why a sample failed, one text for each.
    """

    name: str
    title: str
    goals: tuple[Goal, ...] = ()
    unit: Unit = "s"
    count: int = 1
    samples: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        """Samples and failures together."""
        return len(self.samples) + len(self.failures)

    @property
    def median(self) -> float | None:
        """The median of the samples; None where there are none."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def p99(self) -> float | None:
        """The 99th percentile of the samples; None where there are none."""
        return percentile(self.samples, 99) if self.samples else None

    @property
    def per_second(self) -> float | None:
        """Jobs or requests per second at the median; None for a row of single things."""
        return self.count / self.median if self.count > 1 and self.median else None

    def multiple(self, bare: float | None) -> float | None:
        """The median as a multiple of a bare start; None where that means nothing."""
        return self.median / bare if self.unit == "s" and self.median is not None and bare else None


@dataclass
class Report:
    """What a run has measured.

    Attributes:
        facts: the machine, the engine, the image, and when it was.
        bare: the bare starts of the run.
        rows: everything else.
    """

    facts: dict[str, Any]
    bare: Row
    rows: list[Row] = field(default_factory=list)

    def missed(self) -> list[str]:
        """The goals that are missed, and the rows with failed samples, in words."""
        unit = self.bare.median
        found = [
            f"{row.title}: {goal.text(row.unit)}"
            for row in self.rows
            for goal in row.goals
            if goal.verdict(row, unit) == "missed"
        ]
        others = [row for row in self.rows if row.failures and not any(g.statistic == "failed" for g in row.goals)]
        return found + [f"{row.title}: {len(row.failures)} of {row.attempts} failed" for row in others]

    def reasons(self) -> dict[str, list[str]]:
        """Why samples failed, each reason once, with the titles of its rows."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for reason in dict.fromkeys(row.failures):
                found.setdefault(reason, []).append(row.title)
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, samples included."""
        return {**self.facts, "rows": [_row_json(row, self.bare.median) for row in [self.bare, *self.rows]]}

    def table(self) -> Table:
        """Everything for the terminal, a row a line, a goal a line."""
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for heading in ("n", "median", "p99", "x bare", "per s"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("goal")
        for row in [self.bare, *self.rows]:
            multiple, rate = row.multiple(self.bare.median), row.per_second
            table.add_row(
                escape(row.title),
                f"{row.attempts}" + (f" ([red]{len(row.failures)} failed[/])" if row.failures else ""),
                _value(row.median, row.unit),
                _value(row.p99, row.unit),
                "" if multiple is None else f"{multiple:.2f}",
                "" if rate is None else f"{rate:.0f}",
                "\n".join(_goal_cell(goal, row, self.bare.median) for goal in row.goals),
            )
        return table


_COLOURS: dict[Verdict, str] = {"met": "green", "missed": "red", "undecided": "yellow"}


def _value(value: float | None, unit: Unit) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} MB" if unit == "MB" else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def _goal_cell(goal: Goal, row: Row, bare: float | None) -> str:
    verdict, value = goal.verdict(row, bare), goal.value(row, bare)
    said = f"[{_COLOURS[verdict]}]{verdict}[/]"
    if goal.over_bare and value is not None:
        said += f", {_value(value, row.unit)}"
    if verdict == "undecided" and row.attempts:
        said += f" (n < {goal.least})"
    return f"{goal.text(row.unit)}: {said}"


def _row_json(row: Row, bare: float | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "count": row.count,
        "median": row.median,
        "p99": row.p99,
        "multiple_of_bare": row.multiple(bare),
        "per_second": row.per_second,
        "samples": row.samples,
        "failures": row.failures,
        "goals": [
            {
                "text": goal.text(row.unit),
                "limit": goal.limit,
                "value": goal.value(row, bare),
                "verdict": goal.verdict(row, bare),
            }
            for goal in row.goals
        ],
    }


# --- a container, timed from inside ----------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """What the measures work on.

    Attributes:
        client: the engine.
        release: the release that is measured.
        image: its slurm-single-node.
        compressed: whether image sizes are also taken compressed.
    """

    client: docker.DockerClient
    release: Release
    image: str
    compressed: bool = False

    def bare_start(self) -> float:
        """Seconds of a `docker run … true`: created, started, waited for; removing it is not counted."""
        with self.container(entrypoint=["true"]) as (began, container):
            status = container.wait()["StatusCode"]
            seconds = time.time() - began
        if status:
            raise EngineError(f"a bare `true` in {self.image} exited with {status}")
        return seconds

    @contextlib.contextmanager
    def container(self, **options: Any) -> Iterator[tuple[float, Any]]:
        """A container as `docker run -d` makes it, and when that began; it is gone after the block."""
        name = f"slurm-bench-{secrets.token_hex(4)}"
        labels = {engine.LABEL_CLUSTER: name, engine.LABEL_OWNER: engine.owner()}
        try:
            began = time.time()
            container = self.client.containers.create(self.image, name=name, hostname=name, labels=labels, **options)
            container.start()
            yield began, container
        except (docker.errors.DockerException, requests.RequestException) as error:
            why = getattr(error, "explanation", None) or error
            raise EngineError(f"the engine failed with a container of {self.image}: {why}") from error
        finally:
            # By its name: an interrupt may come before we hold the container.
            with contextlib.suppress(docker.errors.NotFound):
                self.client.containers.get(name).remove(v=True, force=True)

    def from_start(self, script: str, **env: str) -> dict[str, float]:
        """Start a cluster and run a script in it at once; seconds from `docker run` to each of its marks."""
        with self.container(environment=env) as (began, container):
            marks = timed(Slurm(ContainerSubstrate(container)), script)
        return {name: at - began for name, at in marks.items()}

    def cluster(self) -> SlurmContainer:
        """A cluster that is ready when its block begins."""
        return SlurmContainer(self.release.version, image=self.image)


#: `mark NAME` prints the time; `await SECONDS PAUSE WHAT COMMAND…` polls inside the container.
_PRELUDE = r"""
set -euo pipefail
seen=
mark() { echo "@ $1 $EPOCHREALTIME"; }
exec {nap}<> <(:)   # reading from a pipe into which nobody writes is a pause without a process
await() {
  local end=$((SECONDS + $1)) pause=$2 what=$3; shift 3
  until "$@"; do
    if ((SECONDS >= end)); then echo "waited in vain for $what; last seen: ${seen:0:200}" >&2; exit 1; fi
    ! read -r -t "$pause" -u "$nap"   # nobody writes: it ends by its time-out
  done
}
over() {       # JOB: according to slurmctld
  seen=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>&1)
  case $seen in '' | PENDING | CONFIGURING | RUNNING | COMPLETING) return 1 ;; esac
}
accounted() {  # JOB: according to slurmdbd
  seen=$(sacct --noheader --allocations --parsable2 --format=State --jobs="$1" 2>&1)
  case $seen in '' | PENDING | RUNNING) return 1 ;; esac
}
completed() { [ "$seen" = COMPLETED ] || { echo "job $1 is $seen, not COMPLETED" >&2; exit 1; }; }
idle() { seen=$(squeue --noheader --all --format='%i %T'); [ -z "$seen" ]; }
all_completed() {  # NUMBER: as many jobs are COMPLETED, and no other one is there
  seen=$(squeue --noheader --array --states=all --format=%T | sort | uniq -c | xargs)
  [ "$seen" = "$1 COMPLETED" ] || { echo "expected $1 COMPLETED, there are: $seen" >&2; exit 1; }
}
"""


def timed(slurm: Slurm, script: str) -> dict[str, float]:
    """Run a bash script in a cluster as a user, and return when it passed its marks.

    It waits inside the cluster, so that what an exec costs is not in the figures.

    Args:
        slurm: the cluster.
        script: may use the functions above.

    Raises:
        CommandError: it failed, with what it said.

    Returns:
        Seconds since the epoch, by the caller's clock, by name of the mark.
    """
    began = time.time()
    done = slurm.run(["bash", "-c", _PRELUDE + script], user=USER, workdir=slurm.home(USER))
    marks = {name: float(at) for name, at in re.findall(r"^@ (\w+) ([\d.]+)$", done.stdout, re.MULTILINE)}
    return on_our_clock(marks, began, time.time())


def on_our_clock(marks: Mapping[str, float], began: float, ended: float) -> dict[str, float]:
    """Marks of a container by the caller's clock, which an engine on another machine need not share.

    Args:
        marks: seconds since the epoch, by the container's clock.
        began: when the caller asked for the command.
        ended: when the caller had its end.

    Example:
        >>> on_our_clock({"srun": 1.5}, 1.0, 2.0), on_our_clock({"srun": 71.5, "sacct": 72.5}, 1.0, 5.0)
        ({'srun': 1.5}, {'srun': 4.0, 'sacct': 5.0})
    """
    shared = all(began <= at <= ended for at in marks.values())
    shift = 0.0 if shared else ended - max(marks.values())
    return {name: at + shift for name, at in marks.items()}


# --- the measures ----------------------------------------------------------------------------------------

#: Yields one sample after another, by name of the row; closing it removes what it started.
Samples = Generator[Mapping[str, float], None, None]


@dataclass(frozen=True)
class Measure:
    """One thing that `--only` can name.

    Attributes:
        name: as in `--only NAME`.
        repeat: how many samples, unless asked otherwise.
        rows: the rows that a sample fills, without samples.
        samples: makes the samples.
        fixed: whether `--repeat` leaves the number alone.
        on_demand: whether it is left out unless it is asked for.
    """

    name: str
    repeat: int
    rows: tuple[Row, ...]
    samples: Callable[[Bench], Samples]
    fixed: bool = False
    on_demand: bool = False


_SRUN = "slurm-ready --wait 60 > /dev/null; srun true; mark srun"

_FIRST = """
slurm-ready --wait 60 > /dev/null
job=$(sbatch --parsable --wrap=hostname); mark accepted
await 60 0.02 "the first job to be over" over "$job"; mark completed; completed "$job"
await 60 0.02 "the first job's accounting" accounted "$job"; mark accounted; completed "$job"
"""

_ROUND_TRIP = """
mark begin
job=$(sbatch --parsable --wrap=hostname)
await 60 0.02 "the job to be over" over "$job"; mark end; completed "$job"
"""

_SINGLE_JOBS = """
mark begin
for ((i = 0; i < {count}; i++)); do sbatch --parsable --wrap=hostname > /dev/null; done; mark accepted
await 300 0.1 "an empty queue" idle; mark end; all_completed {count}
"""

_ARRAY = """
mark begin
sbatch --parsable --array=1-{count} --wrap=hostname > /dev/null
await 300 0.1 "an empty queue" idle; mark end; all_completed {count}
"""


def _start(accounting: str, row: str) -> Callable[[Bench], Samples]:
    def samples(bench: Bench) -> Samples:
        while True:
            yield {row: bench.from_start(_SRUN, SLURM_ACCOUNTING=accounting)["srun"]}

    return samples


def _first(bench: Bench) -> Samples:
    while True:
        marks = bench.from_start(_FIRST)
        yield {
            "first-sbatch": marks["completed"] - marks["accepted"],
            "first-sacct": marks["accounted"] - marks["accepted"],
            "start-first-sbatch": marks["completed"],
            "start-first-sacct": marks["accounted"],
        }


def _round_trip(bench: Bench) -> Samples:
    with bench.cluster() as slurm:
        timed(slurm, _ROUND_TRIP)  # the first job is another measure
        while True:
            marks = timed(slurm, _ROUND_TRIP)
            yield {"round-trip": marks["end"] - marks["begin"]}


def _single_jobs(bench: Bench) -> Samples:
    while True:
        with bench.cluster() as slurm:
            marks = timed(slurm, _SINGLE_JOBS.format(count=200))
        yield {
            "sbatch-200-accepted": marks["accepted"] - marks["begin"],
            "sbatch-200": marks["end"] - marks["begin"],
        }


def _array(count: int) -> Callable[[Bench], Samples]:
    def samples(bench: Bench) -> Samples:
        while True:
            with bench.cluster() as slurm:
                marks = timed(slurm, _ARRAY.format(count=count))
            yield {f"array-{count}": marks["end"] - marks["begin"]}

    return samples


def _rest(bench: Bench) -> Samples:
    with bench.cluster() as slurm:
        timed(slurm, _ARRAY.format(count=LISTED_JOBS))
        token, version = slurm.token(USER), slurm.rest(USER).version
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(Rest(slurm.rest_url(), USER, token, version=version)) for _ in range(THREADS)
            ]
            while True:
                yield {
                    f"rest-{path}-{len(used)}": _request_seconds(used, path)
                    for used in (clients[:1], clients)
                    for path in ("ping", "jobs")
                }


def _request_seconds(clients: Sequence[Rest], path: str) -> float:
    """Seconds of REQUESTS requests, shared by so many clients, each with one connection and one thread."""

    def ask(client: Rest) -> None:
        for _ in range(REQUESTS // len(clients)):
            client.get(path)

    for client in clients:
        client.get(path)  # opens the connection
    with ThreadPoolExecutor(len(clients)) as pool:
        began = time.perf_counter()
        list(pool.map(ask, clients))
        return time.perf_counter() - began


def _stop(bench: Bench) -> Samples:
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


def _sizes(bench: Bench) -> Samples:
    names = {
        "client": images.image_name("slurm-client", bench.release),
        "single-node": bench.image,
    }
    found = images.sizes(bench.client, list(names.values()), compressed=bench.compressed)
    while True:
        sample = {f"size-{kind}": found[name].uncompressed / 1e6 for kind, name in names.items()}
        for kind, name in names.items():
            if (compressed := found[name].compressed) is not None:
                sample[f"size-{kind}-compressed"] = compressed / 1e6
        yield sample


# --- builds ----------------------------------------------------------------------------------------------


class _Builder:
    """Builds from a copy of images/ into a repository of its own, and removes both at the end."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.mark = f"bench-{secrets.token_hex(4)}"
        self._repository = f"{images.REPOSITORY}/{self.mark}"
        self._made: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Builder:
        with contextlib.ExitStack() as stack:
            parent = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-testbed-bench-")))
            self.folder = parent / "images"
            shutil.copytree(data.images(), self.folder)
            stack.enter_context(_environment("REPOSITORY", self._repository))
            stack.callback(self._remove_images)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def build(self, *options: str) -> float:
        """Build the images with further options of bake, and return the seconds that it took."""
        began = time.perf_counter()
        built = images.build(
            BUILT, [self.bench.release], folder=self.folder, say=lambda _: None, run=_bake_with(options)
        )
        seconds = time.perf_counter() - began
        for tag in (tag for image in built for tag in image.tags):
            before, self._made[tag] = self._made.get(tag), str(self.bench.client.images.get(tag).id)
            if before not in {None, self._made[tag]}:
                self._remove_untagged(str(before))
        return seconds

    def forget_caches(self) -> None:
        """Give every cache mount an id of its own, so that the next build finds all of them empty."""
        self._stack.callback(self._remove_caches)
        for dockerfile in self.folder.rglob("Dockerfile"):
            text = dockerfile.read_text()
            dockerfile.write_text(with_own_caches(text, self.mark))

    def change_entrypoint(self) -> None:
        """Add a line to the entry point, another one each time."""
        with (self.folder / "slurm/rootfs/usr/bin/slurm-entrypoint").open("a") as file:
            file.write(f"# {self.mark} {secrets.token_hex(4)}\n")

    def _remove_images(self) -> None:
        # Whatever stands in our repository: an interrupted build may have left what we never saw.
        tags = {tag for image in self.bench.client.images.list() for tag in image.tags}
        for tag in sorted(tag for tag in tags if tag.startswith(f"{self._repository}/")):
            with contextlib.suppress(docker.errors.ImageNotFound):
                self.bench.client.images.remove(tag)

    def _remove_untagged(self, image: str) -> None:
        # Never by force: an equal build may carry somebody else's tag.
        with contextlib.suppress(docker.errors.ImageNotFound, docker.errors.APIError):
            if not self.bench.client.images.get(image).tags:
                self.bench.client.images.remove(image)

    def _remove_caches(self) -> None:
        env = engine.environment()
        usage = ["docker", "buildx", "du", "--verbose"]
        listed = subprocess.run(usage, env=env, capture_output=True, text=True, check=False).stdout
        for record in cache_records(listed, self.mark):
            # By their ids, one by one: a filter that does not match must not prune what is others'.
            prune = ["docker", "buildx", "prune", "--force", "--filter", f"id={record}"]
            subprocess.run(prune, env=env, capture_output=True, check=False)


def with_own_caches(dockerfile: str, mark: str) -> str:
    """A Dockerfile whose cache mounts have ids that begin with a mark.

    Args:
        dockerfile: its text.
        mark: what no other cache begins with.

    Raises:
        SlurmTestbedError: a cache mount is written in another way than ours are.

    Example:
        >>> with_own_caches("RUN --mount=type=cache,target=/root/.cache/ccache make", "x")
        'RUN --mount=type=cache,id=x/root/.cache/ccache,target=/root/.cache/ccache make'
    """
    text = re.sub(r"type=cache,target=([^,\s]+)", rf"type=cache,id={mark}\1,target=\1", dockerfile)
    if other := re.findall(rf"type=cache(?!,id={re.escape(mark)})\S*", text):
        raise SlurmTestbedError(
            f"no cold build: the cache mount {other[0]} cannot be given an id of its own",
            hint="write cache mounts as type=cache,target=…",
        )
    return text


def cache_records(listed: str, mark: str) -> list[str]:
    """The ids of the cache mounts whose id begins with a mark, from `docker buildx du --verbose`."""
    # A description holds the whole command, which may have many lines.
    records = re.split(r"^ID:\s*", listed, flags=re.MULTILINE)[1:]
    return [record.split()[0] for record in records if re.search(rf'with id "/?{re.escape(mark)}/', record)]


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _bake_with(options: Sequence[str]) -> images.Runner:
    """Runs bake with further options and keeps its output; an interrupt ends it."""

    def run(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
        process = subprocess.Popen(
            [*argv, *options, "--progress=plain"],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            output = process.communicate()[0]
        except BaseException:
            process.terminate()
            process.wait(20)
            raise
        return process.returncode, output

    return run


def _build_cold(bench: Bench) -> Samples:
    while True:
        with _Builder(bench) as builder:
            builder.forget_caches()
            seconds = builder.build("--no-cache")
        yield {"build-cold": seconds}


def _build_warm(bench: Bench) -> Samples:
    with _Builder(bench) as builder:
        builder.build()
        while True:
            yield {"build-warm": builder.build()}


def _build_entrypoint(bench: Bench) -> Samples:
    with _Builder(bench) as builder:
        builder.build()
        while True:
            builder.change_entrypoint()
            yield {"build-entrypoint": builder.build()}


# --- the catalogue ---------------------------------------------------------------------------------------


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
    stop = Row("stop", "docker stop → exited with 0", (Goal("p99", 3.0),))
    return [
        Measure("start", 100, (start,), _start("yes", start.name)),
        Measure("start-no-accounting", 20, (without,), _start("no", without.name)),
        Measure("first", 20, first, _first),
        Measure("stop", 10, (stop,), _stop),
    ]


def _work_measures() -> list[Measure]:
    trip = Row("round-trip", "lone sbatch: called → COMPLETED")
    singles = (
        Row("sbatch-200-accepted", "200 sbatch: all accepted", count=200),
        Row("sbatch-200", "200 sbatch: all COMPLETED", _goal(8), count=200),
    )
    array_200 = Row("array-200", "array of 200: sbatch → COMPLETED", _goal(5), count=200)
    array_1000 = Row("array-1000", "array of 1,000: sbatch → COMPLETED", count=1000)
    rest = tuple(
        Row(f"rest-{path}-{n}", f"{REQUESTS} GET {path}, {said}", count=REQUESTS)
        for n, said in ((1, "one connection"), (THREADS, f"{THREADS} threads"))
        for path in ("ping", "jobs")
    )
    return [
        Measure("round-trip", 20, (trip,), _round_trip),
        Measure("sbatch-200", 3, singles, _single_jobs),
        Measure("array-200", 3, (array_200,), _array(200)),
        Measure("array-1000", 3, (array_1000,), _array(1000)),
        Measure("rest", 5, rest, _rest),
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
        Measure("sizes", 1, sizes, _sizes, fixed=True),
        Measure("build-cold", 1, (cold,), _build_cold, fixed=True, on_demand=True),
        Measure("build-warm", 3, (warm,), _build_warm, on_demand=True),
        Measure("build-entrypoint", 3, (line,), _build_entrypoint, on_demand=True),
    ]


def catalogue() -> dict[str, Measure]:
    """Every measure by name, with rows that are empty yet.

    Example:
        >>> list(catalogue())[:3]
        ['start', 'start-no-accounting', 'first']
    """
    measures = [*_cluster_measures(), *_work_measures(), *_image_measures()]
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
    builds = {name for name, measure in known.items() if measure.on_demand} if build else set()
    chosen = (asked | builds) if asked else builds | {n for n, m in known.items() if not m.on_demand}
    return [measure for name, measure in known.items() if name in chosen]


# --- a run -----------------------------------------------------------------------------------------------


def run(
    *,
    release: str | None = None,
    image: str | None = None,
    only: str = "",
    repeat: int | None = None,
    json_file: Path | None = None,
    build: bool = False,
    compressed: bool = False,
    strict: bool = False,
    console: Console | None = None,
) -> Report:
    """Measure, show a table, and write JSON: the body of `invoke bench`.

    Args:
        release: a version or minor release; the default release where none is given.
        image: a slurm-single-node to measure instead of the release's.
        only: names of measures, separated by commas; empty for all but the builds.
        repeat: how many samples of each measure, but of sizes and the cold build.
        json_file: where everything is written, samples included.
        build: measure the builds too, which takes minutes.
        compressed: also compress the images for their sizes, which takes some 20 s.
        strict: fail where a goal is missed or a sample failed.
        console: where the table goes; standard output, unless given.

    Raises:
        UsageError: an option cannot be right.
        EngineError: the image is missing.
        SlurmTestbedError: a goal is missed, where `strict` is set.

    Example:
        >>> run(only="start,stop", repeat=3).bare.median < 1  # doctest: +SKIP
        True
    """
    if repeat is not None and repeat < 1:
        raise UsageError(f"--repeat is 1 or more, not {repeat}")
    if json_file is not None and not json_file.parent.is_dir():
        raise UsageError(f"--json: there is no folder {json_file.parent}")
    chosen = choose(only, build=build)
    known = Releases.load()
    which = known.find(release) if release else known.default()[0]
    name = image or images.image_name("slurm-single-node", which)
    bench = Bench(engine.connect(), which, name, compressed)
    if not images.exists(bench.client, name):
        raise EngineError(f"there is no image {name}", hint="build it: invoke build")
    report = Report(_facts(bench), Row("bare", "bare docker run … true"))
    try:
        _measure(bench, chosen, repeat, report)
    finally:
        # What was measured before an interrupt is worth as much.
        _publish(report, json_file, console or Console())
    if strict and (missed := report.missed()):
        raise SlurmTestbedError(
            "goals missed:\n" + "\n".join(missed), hint="the goals are those of a quiet machine with 2 cores"
        )
    return report


def _measure(bench: Bench, chosen: Sequence[Measure], repeat: int | None, report: Report) -> None:
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as progress:
        for _ in progress.track(range(min(repeat or BARE_STARTS, BARE_STARTS)), description="bare"):
            report.bare.samples.append(bench.bare_start())
        for measure in chosen:
            times = repeat if repeat and not measure.fixed else measure.repeat
            report.rows += measure.rows
            with contextlib.closing(take(measure, bench, times)) as taking:
                for _ in progress.track(taking, total=times, description=measure.name):
                    # A bare start between the starts: both meet the same machine, busy as it may be.
                    if measure.name.startswith("start"):
                        report.bare.samples.append(bench.bare_start())
            if not console.is_terminal:
                console.print(f"{measure.name}: {_value(measure.rows[0].median, measure.rows[0].unit)}", style="")
    report.rows[:] = [row for row in report.rows if row.attempts]


def take(measure: Measure, bench: Bench, times: int) -> Generator[None, None, None]:
    """Take samples of a measure into its rows; yields after each, and ends early when all goes wrong.

    Args:
        measure: what to take.
        bench: what it works on.
        times: how many samples, failed ones included.
    """
    samples = measure.samples(bench)
    in_a_row = 0
    try:
        for _ in range(times):
            try:
                sample = next(samples)
            except (SlurmTestbedError, docker.errors.DockerException, requests.RequestException) as error:
                in_a_row += 1
                for row in measure.rows:
                    row.failures.append(str(error))
                samples = measure.samples(bench)  # a generator that raised has ended
            else:
                in_a_row = 0
                for row in measure.rows:
                    row.samples += [sample[row.name]] if row.name in sample else []
            yield
            if in_a_row == FAILURES_IN_A_ROW:
                return
    finally:
        samples.close()


def _facts(bench: Bench) -> dict[str, Any]:
    info, image = bench.client.info(), bench.client.images.get(bench.image)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": bench.release.version,
        "image": bench.image,
        "image_id": image.id,
        "machine": {
            "cpus": info.get("NCPU"),
            "memory": info.get("MemTotal"),
            "architecture": info.get("Architecture"),
            "kernel": info.get("KernelVersion"),
            "engine": info.get("ServerVersion"),
            "storage": info.get("Driver"),
            "cgroup": info.get("CgroupVersion"),
            # Of this machine, which need not be the engine's; above 1 or so the figures are noisy.
            "load_before": round(os.getloadavg()[0], 2),
        },
    }


def _publish(report: Report, json_file: Path | None, console: Console) -> None:
    if not report.bare.samples:
        return
    machine = report.facts["machine"]
    console.print(
        f"{report.facts['image']} on {machine['cpus']} CPUs, engine {machine['engine']}, "
        f"load {machine['load_before']}\n",
        highlight=False,
    )
    console.print(report.table())
    for reason, titles in report.reasons().items():
        console.print(f"\nfailed: {'; '.join(titles)}\n{reason}", style="red", markup=False, highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(report.to_json(), indent=2) + "\n")
