"""A run of the benchmark: measure, show a table, and write JSON."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from slurm_testbed import engine, images
from slurm_testbed.bench.catalogue import choose
from slurm_testbed.bench.figures import Row
from slurm_testbed.bench.inside import Bench
from slurm_testbed.bench.measure import Measure, take
from slurm_testbed.bench.report import Report, in_words
from slurm_testbed.errors import EngineError, SlurmTestbedError, UsageError
from slurm_testbed.releases import Releases

#: How many bare starts are measured before everything else.
BARE_STARTS = 20


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
    if json_file is not None and json_file.is_dir():
        raise UsageError(f"--json: {json_file} is a folder")
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
                console.print(f"{measure.name}: {in_words(measure.rows[0].median, measure.rows[0].unit)}", style="")
    report.rows[:] = [row for row in report.rows if row.attempts]


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
