"""Run the cells: images first, then a pytest process for each, several at once, and nothing left in the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from slurm_testbed import engine, images
from slurm_testbed.children import sigterm_raises
from slurm_testbed.errors import BuildError, NoSourceError, UsageError
from slurm_testbed.matrix.plan import Cell, Plan, at_once, longest_first
from slurm_testbed.matrix.progress import Progress, progress_on
from slurm_testbed.matrix.report import Report
from slurm_testbed.matrix.results import CellResult, Outcome, ReportLog, judge, plain
from slurm_testbed.releases import Release

#: Where runs keep their files, below the repository.
RESULTS = Path(".results/matrix")
#: The file of a run that says all of it.
REPORT = "matrix.json"
#: Older runs are removed.
KEPT_RUNS = 20
#: Seconds after which a cell is ended; the longest suite takes a tenth of it.
CELL_SECONDS = 30 * 60
#: What ends a cell, and seconds that it has for it: by SIGINT pytest removes its clusters.
ENDINGS = ((signal.SIGINT, 40), (signal.SIGTERM, 5), (signal.SIGKILL, 5))
#: Seconds between two looks at what the running cells have written.
LOOK = 0.5

#: Builds what a release's tests need, and raises where that is not possible.
Build = Callable[[Release, Callable[[str], None]], object]


def _build(release: Release, say: Callable[[str], None]) -> object:
    return images.build((), [release], say=say)


def run(
    plan: Plan,
    *,
    root: Path,
    jobs: int = 0,
    seconds: float = CELL_SECONDS,
    json_file: Path | None = None,
    junit_file: Path | None = None,
    console: Console | None = None,
    build: Build = _build,
) -> Report:
    """Build the images, run every cell, and write what came of it: the body of `invoke matrix`.

    The first Ctrl-C, SIGTERM or SIGHUP ends the cells, which remove their clusters; a second one kills them.

    Args:
        plan: which cells.
        root: the repository.
        jobs: how many cells at once; 0 to choose by the engine's processors and memory.
        seconds: after which a cell is ended.
        json_file: where the JSON goes, beside the run's own folder in .results.
        junit_file: where the JUnit XML goes, likewise.
        console: for the progress; standard error, unless given.
        build: makes the images of a release.

    Raises:
        UsageError: an option cannot be right.
        EngineNotFoundError: no engine answers.

    Example:
        >>> report = run(plan(Path(), suites="rest"), root=Path())  # doctest: +SKIP
        >>> report.ok  # doctest: +SKIP
        True
    """
    for option, file in (("--json", json_file), ("--junit", junit_file)):
        if file is not None and not file.parent.is_dir():
            raise UsageError(f"{option}: there is no folder {file.parent}")
        if file is not None and file.is_dir():
            raise UsageError(f"{option}: {file} is a folder")
    client = engine.connect()
    info = client.info()
    number, why = at_once(len(plan.cells), cpus=int(info["NCPU"]), memory=int(info["MemTotal"]), asked=jobs)
    console = console or Console(stderr=True)
    console.print(why, style="", highlight=False)
    report = Report.of(plan, jobs=number, engine=info, root=root)
    started = time.monotonic()
    runner = _Runner(plan, root, _new_folder(root), number, seconds, report, console)
    try:
        with sigterm_raises():
            runner.build(build)
            asyncio.run(runner.run())
    except KeyboardInterrupt:
        report.interrupted = signal.SIGINT
    except SystemExit as told:  # by SIGTERM or SIGHUP before the cells run, as a shell has it
        report.interrupted = int(told.code or 0) - 128
    finally:
        report.seconds = time.monotonic() - started
        try:
            engine.sweep(client)
        finally:
            runner.publish(json_file, junit_file)
    return report


def _new_folder(root: Path) -> Path:
    """An own folder for a run, so that two of them do not meet; of the old ones the newest are kept."""
    runs = root / RESULTS
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(path for path in runs.iterdir() if path.is_dir())[: -KEPT_RUNS + 1]:
        shutil.rmtree(old, ignore_errors=True)
    folder = runs / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    folder.mkdir()
    return folder


def _last_seconds(root: Path) -> dict[str, float]:
    """How long each cell took the last time that it ran, from the reports of earlier runs."""
    found: dict[str, float] = {}
    for path in sorted((root / RESULTS).glob(f"*/{REPORT}")):
        with contextlib.suppress(ValueError, KeyError, OSError):  # one that another run is just removing
            cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
            found |= {cell["name"]: cell["seconds"] for cell in cells if cell["outcome"] == Outcome.PROVED}
    return found


@dataclass
class _Runner:
    plan: Plan
    root: Path
    folder: Path
    jobs: int
    seconds: float
    report: Report
    console: Console
    running: dict[int, Cell] = field(default_factory=dict)

    # --- images -----------------------------------------------------------------------------------------

    def build(self, build: Build) -> None:
        """Build the images of each release once; its cells have their result where that is not possible."""
        for release in self.plan.releases:
            self._say(f"images of Slurm {release}")
            try:
                build(release, self._say)
            except NoSourceError as error:
                self._without_images(release, Outcome.NOT_CHECKABLE, error)
            except BuildError as error:
                self._without_images(release, Outcome.ERROR, error)

    def _without_images(self, release: Release, outcome: Outcome, error: BuildError) -> None:
        for cell in self.plan.cells:
            if cell.release == release:
                self.report.results[cell] = CellResult(cell, outcome, plain(error.message))

    def _say(self, text: str) -> None:
        self.console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    # --- cells ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run every cell that has no result yet, several at once, until all have one or a signal comes."""
        waiting = [cell for cell in self.plan.cells if cell not in self.report.results]
        free = asyncio.Semaphore(self.jobs)
        with progress_on(self.console, len(self.plan.cells)) as progress:
            for result in self.report.results.values():
                progress.ended(result)
            tasks = [
                asyncio.create_task(self._one(cell, free, progress))
                for cell in longest_first(waiting, _last_seconds(self.root))
            ]
            with self._signals_end(tasks):
                done = await asyncio.gather(*tasks, return_exceptions=True)
        for problem in done:
            if isinstance(problem, Exception):  # a cell that was cancelled has its result
                raise problem

    @contextlib.contextmanager
    def _signals_end(self, tasks: Sequence[asyncio.Task[None]]) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def end(number: signal.Signals) -> None:
            if self.report.interrupted:
                for group in self.running:
                    _signal(group, signal.SIGKILL)
                return
            self.report.interrupted = number
            self._say(f"{number.name}: ending {len(self.running)} cells; once more kills them")
            for task in tasks:
                task.cancel()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, end, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def _one(self, cell: Cell, free: asyncio.Semaphore, progress: Progress) -> None:
        async with free:
            folder = self.folder / str(cell)
            folder.mkdir()
            log = ReportLog(folder / "report.jsonl")
            started = time.monotonic()
            progress.started(cell)
            with (folder / "log.txt").open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *_command(cell, folder),
                    cwd=self.root,
                    env=_environment(),
                    stdin=subprocess.PIPE,  # by its end the cell knows of ours
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # A group of its own: we alone say when it ends, and then all of it.
                    process_group=0,
                )
            self.running[process.pid] = cell
            cut_short, early = "", False
            try:
                async with asyncio.timeout(self.seconds):
                    await self._watch(process, cell, log, progress)
            except TimeoutError:
                cut_short = f"it did not end within {self.seconds / 60:g} minutes"
            except asyncio.CancelledError:
                cut_short, early = f"{signal.Signals(self.report.interrupted).name} came while it ran", True
                raise
            finally:
                try:
                    await _whole(_end(process))
                finally:
                    del self.running[process.pid]
                    log.read()
                    taken = time.monotonic() - started
                    code = process.returncode or 0
                    result = judge(cell, log, code=code, seconds=taken, folder=folder, cut_short=cut_short)
                    result = replace(result, outcome=Outcome.NOT_RUN) if early else result
                    self.report.results[cell] = result
                    progress.ended(result)
                    # What its processes started is theirs; they are dead now, and what is left of it nobody's.
                    await asyncio.to_thread(lambda: engine.sweep(engine.connect()))

    async def _watch(self, process: asyncio.subprocess.Process, cell: Cell, log: ReportLog, progress: Progress) -> None:
        """Show how far a cell is, until it has ended."""
        over = asyncio.create_task(process.wait())
        while not (await asyncio.wait([over], timeout=LOOK))[0]:
            log.read()
            progress.moved(cell, log)

    # --- the end ----------------------------------------------------------------------------------------

    def publish(self, json_file: Path | None, junit_file: Path | None) -> None:
        """Write the report into the run's folder, and where it is asked for."""
        for cell in self.plan.cells:
            self.report.results.setdefault(cell, CellResult(cell, Outcome.NOT_RUN, "the run ended before its turn"))
        text = json.dumps(self.report.to_json(), indent=2) + "\n"
        junit = self.report.to_junit()
        for file in filter(None, [self.folder / REPORT, json_file]):
            file.write_text(text, encoding="utf-8")
        for file in filter(None, [self.folder / "junit.xml", junit_file]):
            junit.write(str(file), pretty=True)


def _command(cell: Cell, folder: Path) -> list[str]:
    argv = [sys.executable, "-m", "pytest", f"tests/{cell.suite}", "--numprocesses=0"]
    argv += ["-p", "no:cacheprovider", "-p", "slurm_testbed.matrix.cell"]
    argv += [f"--slurm-release={cell.release.version}", f"--slurm-on={cell.substrate}"]
    argv += [f"--report-log={folder / 'report.jsonl'}", f"--junit-xml={folder / 'junit.xml'}"]
    argv += ["--override-ini", f"junit_suite_name={cell}"]
    return argv


def _environment() -> dict[str, str]:
    """Ours, without what a pytest around us left in it, or what a person set for another one, or for a terminal."""
    foreign = ("PYTEST_", "FORCE_COLOR", "PY_COLORS")
    return {name: value for name, value in engine.environment().items() if not name.startswith(foreign)}


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Await all of it, whoever cancels us meanwhile."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a cell that still runs, and whatever it left running in its group."""
    for number, seconds in ENDINGS if process.returncode is None else ():
        _signal(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), seconds)
            break
    _signal(process.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
