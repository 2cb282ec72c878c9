"""The matrix over suites of our own: what comes of each kind of cell, and how a run ends early."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
from junitparser import JUnitXml
from rich.console import Console

from slurm_testbed import engine, matrix
from slurm_testbed.errors import BuildError, NoSourceError, UnknownReleaseError, UsageError
from slurm_testbed.matrix import CellResult, Outcome, Report
from slurm_testbed.matrix.plan import at_once, longest_first
from slurm_testbed.matrix.results import ReportLog
from slurm_testbed.pytest_plugin import SUBSTRATES
from slurm_testbed.readiness import wait_until
from slurm_testbed.releases import Release, Releases

ROOT = Path(__file__).resolve().parents[2]
RELEASE = Releases.load().all[-1]

SUITES = {
    "good": "def test_a(): pass\ndef test_b(): pass",
    "bad": "def test_a(): pass\ndef test_b(): assert 1 == 2, 'one is not two'",
    "teardown": """
        import pytest

        @pytest.fixture
        def breaks():
            yield
            raise OSError("the cluster stayed")

        def test_a(breaks): pass
    """,
    "partly": "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('not checkable here because no GPU')",
    "lacking": "import pytest\ndef test_a(): pytest.skip('not checkable here because no GPU')",
    "skipping": "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('later')",
    "expecting": "import pytest\n@pytest.mark.xfail\ndef test_a(): assert False",
    "crashing": "import os\ndef test_a(): pass\ndef test_b(): os.kill(os.getpid(), 9)",
    "exiting": "import os\ndef test_a(): os._exit(0)",
    "broken": "import nothing_of_this_name",
    "empty": "",
}
HANGING = """
    import os, pathlib, pytest, subprocess, time

    @pytest.fixture
    def cluster():
        child = subprocess.Popen(["sh", "-c", "trap '' INT TERM; exec sleep 600"])
        pathlib.Path("started.tmp").write_text(f"{os.getpid()} {child.pid}")
        os.replace("started.tmp", "started")
        yield
        pathlib.Path("removed").touch()

    def test_that_hangs(cluster):
        time.sleep(600)
"""


def make(root: Path, suites: dict[str, str]) -> Path:
    for name, text in suites.items():
        (root / "tests" / name).mkdir(parents=True)
        (root / "tests" / name / f"test_{name}.py").write_text(textwrap.dedent(text))
    (root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    return root


def no_build(release: Release, say: Callable[[str], None]) -> None:
    say(f"nothing to build for {release}")


def run(root: Path, *, build: Callable[..., object] = no_build, suites: str = "all", **options: object) -> Report:
    plan = matrix.plan(root, releases=RELEASE.version, suites=suites, substrates="single")
    console = Console(file=io.StringIO(), width=200)
    return matrix.run(plan, root=root, build=build, console=console, **options)  # type: ignore[arg-type]


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=250)
    report.show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def by_suite(report: Report) -> dict[str, CellResult]:
    return {result.cell.suite: result for result in report}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One run over a suite of each kind."""
    return run(make(tmp_path_factory.mktemp("repository"), SUITES))


# --- what comes of a cell --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "outcome", "passed", "failed", "lacking", "reason"),
    [
        ("good", Outcome.PROVED, 2, {}, {}, ""),
        ("bad", Outcome.FAILED, 1, {"test_b": "AssertionError: one is not two"}, {}, ""),
        ("teardown", Outcome.FAILED, 0, {"test_a": "OSError: the cluster stayed"}, {}, ""),
        ("partly", Outcome.PROVED, 1, {}, {"test_b": "no GPU"}, ""),
        ("lacking", Outcome.NOT_CHECKABLE, 0, {}, {"test_a": "no GPU"}, "no GPU"),
        ("skipping", Outcome.FAILED, 1, {"test_b": "it does not say what is missing here: later"}, {}, ""),
        ("expecting", Outcome.FAILED, 0, {"test_a": "expected to fail"}, {}, ""),
        ("crashing", Outcome.ERROR, 1, {}, {}, "pytest was killed by SIGKILL; the last test was .*test_b"),
        ("exiting", Outcome.ERROR, 0, {}, {}, "pytest died with 0; the last test was .*test_a"),
        ("broken", Outcome.FAILED, 0, {"test_broken.py": "cannot be collected"}, {}, ""),
        ("empty", Outcome.ERROR, 0, {}, {}, "pytest ended with 5: the suite has no tests"),
    ],
)
def test_cell_has_its_outcome(
    whole: Report,
    suite: str,
    outcome: Outcome,
    passed: int,
    failed: dict[str, str],
    lacking: dict[str, str],
    reason: str,
) -> None:
    found = by_suite(whole)[suite]

    assert found.outcome is outcome, f"{found}\n{found.log.read_text() if found.log else ''}"
    assert found.passed == passed, found
    for expected, said in ((failed, found.failed), (lacking, found.lacking)):
        assert len(said) == len(expected), said
        for (test, why), (name, text) in zip(said.items(), expected.items(), strict=True):
            assert name in test, f"{test}: {why}"
            assert text in why, f"{test}: {why}"
    assert re.match(reason, found.reason), found.reason
    assert bool(found.reason) == bool(reason), found.reason


def test_bad_cells_make_the_run_fail_and_gaps_do_not(whole: Report, tmp_path: Path) -> None:
    fine = run(make(tmp_path, {name: SUITES[name] for name in ("good", "partly", "lacking")}))

    assert (whole.ok, whole.exit_status) == (False, 1)
    assert (fine.ok, fine.exit_status) == (True, 0), shown(fine)


def test_table_names_every_gap_and_every_failure(whole: Report) -> None:
    text = shown(whole)

    assert re.search(r"lacking-single: not checkable, because no GPU\n", text), text
    assert re.search(r"partly-single: proved\n  1 not checkable because no GPU\n", text), text
    assert re.search(r"bad-single: failed\n  \S+test_b: AssertionError: one is not two\n.*\n", text), text
    assert re.search(r"  log: \.results/matrix/\S+-bad-single/log\.txt\n", text), text
    assert "2 proved, 5 failed, 3 error, 1 not checkable; " in text, text
    log = re.search(r"log: (\S+crashing\S+)", text)
    assert log, text
    assert (whole.root / log[1]).is_file(), log[1]


def test_json_is_as_the_documentation_describes_it(whole: Report) -> None:
    schema = re.search(r"```json\n(.*?)```", (ROOT / "docs/matrix.md").read_text(), re.DOTALL)
    assert schema
    said = json.loads(json.dumps(whole.to_json()))

    jsonschema.validate(said, json.loads(schema[1]))

    assert said["totals"] == {"proved": 2, "failed": 5, "error": 3, "not checkable": 1, "not run": 0}, said["totals"]
    assert {cell["suite"] for cell in said["cells"]} == set(SUITES)


def test_junit_has_every_cell_and_every_test(whole: Report, tmp_path: Path) -> None:
    whole.to_junit().write(str(tmp_path / "junit.xml"))

    merged = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    suites = {str(suite.name).split("-")[1]: suite for suite in merged}

    assert set(suites) == set(SUITES)
    assert (suites["good"].tests, suites["good"].failures) == (2, 0)
    assert (suites["bad"].tests, suites["bad"].failures) == (2, 1)
    assert suites["crashing"].errors == 1, "a cell whose pytest died is no error"
    assert suites["lacking"].skipped == 2, "the test and its cell"
    properties = {found.name: found.value for found in suites["bad"].properties()}
    assert properties == {"slurm_release": RELEASE.version, "slurm_on": "single", "outcome": "failed"}


def test_json_and_junit_are_written_where_asked_and_in_the_runs_folder(tmp_path: Path) -> None:
    root = make(tmp_path / "root", {"good": SUITES["good"]})

    run(root, json_file=tmp_path / "m.json", junit_file=tmp_path / "j.xml")

    (folder,) = (root / ".results/matrix").iterdir()
    assert (folder / "matrix.json").read_text() == (tmp_path / "m.json").read_text()
    assert (folder / "junit.xml").read_text() == (tmp_path / "j.xml").read_text()


def test_missing_folder_for_a_file_is_told_before_anything_runs(tmp_path: Path) -> None:
    root = make(tmp_path, {"good": SUITES["good"]})

    with pytest.raises(UsageError, match="--json: there is no folder /nowhere"):
        run(root, json_file=Path("/nowhere/m.json"))

    assert not (root / ".results").exists(), "it ran all the same"


@pytest.mark.parametrize("option", ["json", "junit"])
def test_folder_in_place_of_a_file_is_told_before_anything_runs(tmp_path: Path, option: str) -> None:
    root = make(tmp_path, {"good": SUITES["good"]})

    with pytest.raises(UsageError, match=f"--{option}: {tmp_path} is a folder"):
        run(root, **{f"{option}_file": tmp_path})  # type: ignore[arg-type]

    assert not (root / ".results").exists(), "it ran all the same"


def test_colours_and_control_characters_are_no_part_of_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "PY_COLORS"):  # as some CI has it
        monkeypatch.setenv(name, "1")
    lacking = "import pytest\ndef test_a(): pytest.skip('not checkable here because \\x1b[31mno\\x07 GPU\\x1b[0m')"
    root = make(tmp_path, {"empty": "", "lacking": lacking})

    report = run(root)

    found = by_suite(report)
    assert re.fullmatch(r"[ -~]+; it printed last: =* ?no tests ran in [\d.]+s ?=*", found["empty"].reason), found
    assert found["empty"].log
    assert "\x1b" not in found["empty"].log.read_text()
    assert found["lacking"].reason == "no GPU", found
    assert len(list(JUnitXml.fromfile(str(next(root.glob(".results/matrix/*/junit.xml")))))) == 2


def test_what_a_run_leaves_is_swept_also_where_the_report_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[object] = []
    monkeypatch.setattr(engine, "sweep", swept.append)
    root = make(tmp_path, {"good": SUITES["good"]})

    def build(release: Release, say: Callable[[str], None]) -> None:
        shutil.rmtree(root / ".results")
        raise BuildError("no disk")

    with pytest.raises(FileNotFoundError):
        run(root, build=build)

    assert len(swept) == 1


# --- progress --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_names_each_cell_and_moves_only_on_a_terminal(tmp_path: Path, terminal: bool) -> None:
    suites = {"good": SUITES["good"], "bad": SUITES["bad"], "slow": "import time\ndef test_a(): time.sleep(1.5)"}
    root = make(tmp_path, suites)
    console = Console(file=io.StringIO(), width=150, force_terminal=terminal, color_system=None)

    matrix.run(
        matrix.plan(root, releases=RELEASE.version, suites="all", substrates="single"),
        root=root,
        jobs=2,
        build=no_build,
        console=console,
    )

    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 cells at once, as asked" in said, said
    assert f"nothing to build for {RELEASE}" in said, said
    assert re.search(r"good-single: proved, 2 of 2 tests passed in \d+ s", said), said
    assert re.search(r"bad-single: failed, 1 of 2 tests passed in \d+ s", said), said
    assert ("\x1b[" in said) == terminal, repr(said)
    assert ("[3/3]" in said) != terminal, said
    assert (re.search(r"slow-single\s+(starting|0 tests)", said) is not None) == terminal, said


# --- images ----------------------------------------------------------------------------------------------


def test_release_whose_source_cannot_be_had_is_a_gap_with_its_reason(tmp_path: Path) -> None:
    def build(release: Release, say: Callable[[str], None]) -> None:
        raise NoSourceError(f"no source of Slurm {release} could be had. Tried:\n  Debian: 404")

    report = run(make(tmp_path, {"good": SUITES["good"]}), build=build)

    assert report.exit_status == 0
    assert by_suite(report)["good"].outcome is Outcome.NOT_CHECKABLE
    assert "not checkable, because no source of Slurm" in shown(report)
    assert "Debian: 404" in shown(report)


def test_release_that_has_a_source_and_does_not_compile_is_an_error(tmp_path: Path) -> None:
    def build(release: Release, say: Callable[[str], None]) -> None:
        raise BuildError("make \x1b[31mexited\x1b[0m with 2")

    report = run(make(tmp_path, {"good": SUITES["good"]}), build=build)

    assert report.exit_status == 1
    assert "good-single: error, make exited with 2" in shown(report)
    assert by_suite(report)["good"].reason == "make exited with 2"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_while_images_are_built_ends_the_run_with_its_report(tmp_path: Path, number: signal.Signals) -> None:
    root = make(tmp_path, {"good": SUITES["good"]})
    build = f"lambda release, say: __import__('os').kill(__import__('os').getpid(), {number:d})"
    told = START.replace("lambda release, say: None", build)

    done = subprocess.run(
        [sys.executable, "-c", told, str(root), RELEASE.version], capture_output=True, text=True, check=False
    )

    assert done.returncode == 128 + number, done.stderr
    report = json.loads((root / "matrix.json").read_text())
    assert (report["ok"], report["interrupted"]) == (False, True)
    assert [cell["reason"] for cell in report["cells"]] == ["the run ended before its turn"]


# --- what is asked for -----------------------------------------------------------------------------------


def test_plan_is_by_default_everything_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, dict.fromkeys(("rest", "slurm", "faults", "unit"), ""))
    monkeypatch.setenv("KUBECONFIG", "kubeconfig")

    plan = matrix.plan(tmp_path)

    assert plan.releases == Releases.load().all
    assert plan.suites == ("slurm", "rest")
    assert plan.substrates == tuple(SUBSTRATES)
    assert matrix.plan(tmp_path, suites="all").suites == ("faults", "rest", "slurm")
    assert matrix.plan(tmp_path, suites="rest,all").suites == ("faults", "rest", "slurm")
    monkeypatch.delenv("KUBECONFIG")
    assert matrix.plan(tmp_path).substrates == ("single", "cluster"), "there is no Kubernetes"


def test_release_that_is_named_twice_is_meant_once(tmp_path: Path) -> None:
    make(tmp_path, {"rest": ""})

    plan = matrix.plan(tmp_path, releases=f"{RELEASE.minor}, {RELEASE.version}")

    assert plan.releases == (RELEASE,)


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"releases": "19.05"}, UnknownReleaseError, f"unknown release 19.05: .*{RELEASE.version}"),
        ({"suites": "slrum"}, UsageError, "no suite slrum: there are rest, slurm, or all"),
        ({"suites": "all,slrum"}, UsageError, "no suite slrum: there are rest, slurm, or all"),
        ({"suites": "unit"}, UsageError, "no suite unit: there are rest, slurm"),
        ({"substrates": "cloud"}, UsageError, "no substrate cloud: there are single, cluster"),
    ],
)
def test_what_is_unknown_is_refused_with_what_there_is(
    tmp_path: Path, asked: dict[str, str], error: type[UsageError], text: str
) -> None:
    make(tmp_path, {"rest": "", "slurm": "", "unit": ""})

    with pytest.raises(error, match=text) as raised:
        matrix.plan(tmp_path, **asked)

    assert raised.value.exit_status == 2


@pytest.mark.parametrize(
    ("cells", "cpus", "gigabytes", "asked", "number", "why"),
    [
        (16, 2, 24, 0, 4, "2 on each of 2 processors"),
        (16, 8, 3, 0, 3, "1 GiB of memory for each"),
        (2, 8, 32, 0, 2, "there are no more"),
        (1, 8, 32, 0, 1, "1 cell at once: there is no other"),
        (16, 1, 0, 0, 1, "1 GiB of memory"),
        (16, 2, 24, 7, 7, "as asked"),
        (3, 2, 24, 7, 3, "as asked"),
    ],
)
def test_number_of_cells_at_once(cells: int, cpus: int, gigabytes: int, asked: int, number: int, why: str) -> None:
    found = at_once(cells, cpus=cpus, memory=gigabytes << 30, asked=asked)

    assert found[0] == number, found
    assert why in found[1], found


def test_negative_number_of_cells_at_once_is_refused() -> None:
    with pytest.raises(UsageError, match="--jobs is 1 or more, not -1"):
        at_once(4, cpus=2, memory=1 << 40, asked=-1)


def test_cell_that_took_longest_the_last_time_starts_first(tmp_path: Path) -> None:
    quick = "import time\ndef test_a(): time.sleep(%s)"
    root = make(tmp_path, {"a": quick % 0, "b": quick % 4, "c": quick % 2})
    run(root, jobs=3)

    again = run(root, jobs=1)

    started = sorted((result.log.stat().st_mtime, result.cell.suite) for result in again if result.log)
    assert [suite for _, suite in started] == ["b", "c", "a"]
    assert longest_first([], {}) == []


# --- reading while pytest writes -------------------------------------------------------------------------


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log = ReportLog(tmp_path / "report.jsonl")
    record = {"$report_type": "TestReport", "nodeid": "t.py::a", "when": "teardown", "outcome": "passed"}
    line = json.dumps(record) + "\n"

    log.read()
    log.path.write_text(line[:20])
    log.read()
    half = log.ended
    log.path.write_text(line)
    log.read()
    log.read()

    assert (half, log.passed) == (0, ["t.py::a"])


# --- ending early ----------------------------------------------------------------------------------------

START = """
import sys
from pathlib import Path
from slurm_testbed import matrix
root = Path(sys.argv[1])
plan = matrix.plan(root, releases=sys.argv[2], suites="all", substrates="single")
report = matrix.run(plan, root=root, jobs=1, build=lambda release, say: None, json_file=root / "matrix.json")
sys.exit(report.exit_status)
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A matrix in the middle of a test that hangs, and the processes of that cell; a second cell waits."""
    root = make(tmp_path, {"a_hanging": HANGING, "b_waiting": SUITES["good"]})
    argv = [sys.executable, "-c", START, str(root), RELEASE.version]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)
    pids: list[int] = []
    try:
        wait_until((root / "started").exists, "the test that hangs", deadline=30)
        pids = [int(pid) for pid in (root / "started").read_text().split()]
        yield process, pids
    finally:
        for pid in (process.pid, *pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_lets_the_cell_clean_up_and_leaves_no_process(
    hanging: tuple[subprocess.Popen[str], list[int]], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process, pids = hanging

    process.send_signal(number)
    _, said = process.communicate(timeout=60)

    assert process.returncode == code, said
    assert (tmp_path / "removed").exists(), "the fixture of the running test was not torn down"
    assert [pid for pid in pids if is_alive(pid)] == [], said
    report = json.loads((tmp_path / "matrix.json").read_text())
    assert [cell["outcome"] for cell in report["cells"]] == ["not run", "not run"], report["cells"]
    assert f"{number.name} came while it ran; " in report["cells"][0]["reason"], report["cells"]
    assert (report["ok"], report["interrupted"]) == (False, True)


def test_killed_matrix_lets_the_cell_clean_up(hanging: tuple[subprocess.Popen[str], list[int]], tmp_path: Path) -> None:
    process, pids = hanging

    process.kill()
    process.wait()

    wait_until(lambda: not is_alive(pids[0]), "the end of the cell whose matrix was killed", deadline=20)
    assert (tmp_path / "removed").exists(), "the fixture of the running test was not torn down"


def test_cell_that_hangs_is_ended_and_says_where(tmp_path: Path) -> None:
    root = make(tmp_path, {"hanging": HANGING})

    report = run(root, seconds=9)

    found = by_suite(report)["hanging"]
    assert found.outcome is Outcome.ERROR
    assert found.reason.startswith("it did not end within 0.15 minutes; "), found.reason
    assert found.seconds < 60, "the time was not kept"
    pids = [int(pid) for pid in (root / "started").read_text().split()]
    assert [pid for pid in pids if is_alive(pid)] == []


ENDING = HANGING.replace(
    'pathlib.Path("removed").touch()',
    """pathlib.Path("ending").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.1)
        pathlib.Path("removed").touch()""",
)
#: As if the cell's time were over as soon as its test has begun.
OVER = """
import asyncio
async def over(*_):
    while not (root / "started").exists():
        await asyncio.sleep(0.1)
    raise TimeoutError
sys.modules["slurm_testbed.matrix.run"]._Runner._watch = over
"""


def test_ctrl_c_while_a_cell_is_ended_lets_it_come_to_its_end(tmp_path: Path) -> None:
    root = make(tmp_path, {"ending": ENDING})
    script = START.replace("plan =", f"{OVER}plan =", 1)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(root), RELEASE.version], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until((root / "ending").exists, "the cell to be ended", deadline=60)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        said = next(line for line in process.stderr if "SIGINT" in line)
        (root / "go").touch()
        process.communicate(timeout=60)
    finally:
        (root / "go").touch()
        process.kill()
        process.communicate()

    assert "ending 1 cells" in said
    assert (process.returncode, (root / "removed").exists()) == (130, True), "the cell was left to itself"
    (cell,) = json.loads((root / "matrix.json").read_text())["cells"]
    assert (cell["outcome"], cell["reason"].partition(";")[0]) == ("error", "it did not end within 30 minutes")
