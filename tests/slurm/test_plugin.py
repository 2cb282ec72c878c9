"""The pytest plugin in other people's suites: a fixture, a matrix of releases, several suites at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slurm_testbed import engine
from slurm_testbed.releases import Release, Releases

SUITE = """
import pytest

def test_job(slurm, slurm_release):
    print("cluster", slurm.name)
    assert slurm.sbatch(wrap="hostname").wait().state == "COMPLETED"

@pytest.mark.requires("LACKING")
def test_needs_what_the_release_has_not(slurm):
    raise AssertionError("it ran all the same")
"""


@pytest.fixture
def lacking(slurm_release: Release) -> str:
    """An ability of other releases."""
    abilities: set[str] = set().union(*(release.abilities for release in Releases.load().all))
    return min(abilities - set(slurm_release.abilities))


@pytest.fixture
def suite(tmp_path: Path, lacking: str) -> Path:
    """A project with one test file."""
    (tmp_path / "test_theirs.py").write_text(SUITE.replace("LACKING", lacking))
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-s", *arguments]
    return subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_test_runs_once_per_release_and_says_what_is_not_checkable(
    suite: Path, slurm_release: Release, lacking: str
) -> None:
    process = start(suite, f"--slurm-release={slurm_release.version}", "-v")

    out, _ = process.communicate()

    assert process.returncode == 0, out
    assert f"test_job[{slurm_release.minor}]" in out
    assert f"not checkable here because Slurm {slurm_release.version} has no {lacking}" in out
    assert "1 passed, 1 skipped" in out


MARKERS = """
import pytest

@pytest.mark.requires("cgroups_v2")
def test_with_a_slip(slurm): pass

@pytest.mark.requires("numpy")
def test_that_knows_nothing_of_slurm(): pass
"""


def test_ability_that_no_release_has_is_an_error_but_where_another_plugin_is_meant(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(MARKERS)
    process = start(tmp_path)

    out, _ = process.communicate()

    assert "requires('cgroups_v2'): no release of releases.yaml has such an ability" in out
    assert "1 passed, 1 error" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--slurm-on=pods"], "--slurm-on pods carries no cluster"),
        (["--slurm-on=kubernetes", "--slurm-on-path"], "--slurm-on-path has no kubernetes"),
    ],
)
def test_options_that_cannot_be_are_a_usage_error(tmp_path: Path, options: list[str], said: str) -> None:
    process = start(tmp_path, *options)

    out, _ = process.communicate()

    assert (process.returncode, said in out) == (pytest.ExitCode.USAGE_ERROR, True), out


FAILING = """
import pytest
from slurm_testbed import SlurmContainer

@pytest.fixture
def mine(slurm_release):
    with SlurmContainer(slurm_release.version) as slurm:
        yield slurm

@pytest.fixture
def idle(slurm_release):
    return SlurmContainer(slurm_release.version)

def test_idle(idle): idle.sbatch(wrap="true")
def test_ours(slurm): assert not slurm.name, "ours"
def test_mine(mine): assert not mine.name, "mine"
def test_within(slurm_release):
    with SlurmContainer(slurm_release.version) as slurm: assert not slurm.name, "within"
"""


def test_test_that_fails_shows_what_its_clusters_logged(tmp_path: Path, slurm_release: Release) -> None:
    (tmp_path / "test_theirs.py").write_text(FAILING)
    process = start(tmp_path, f"--slurm-release={slurm_release.version}")

    out, _ = process.communicate()

    assert "4 failed" in out
    assert "this SlurmContainer is not started: use it in a with statement" in out
    for test in ("test_ours", "test_mine", "test_within"):
        shown = out.partition(f"_ {test}[")[2].partition("\n___")[0]
        assert "- squeue -" in shown, f"{test}:\n{out}"
        assert "Running as primary controller" in shown, f"{test}:\n{out}"


@pytest.mark.row("U-02.4")
def test_two_suites_at_once_do_not_meet(suite: Path, slurm_release: Release) -> None:
    both = [start(suite, f"--slurm-release={slurm_release.version}") for _ in range(2)]

    outputs = [process.communicate()[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], "\n".join(outputs)
    names = {line.partition("cluster ")[2] for out in outputs for line in out.splitlines() if "cluster " in line}
    assert len(names) == 2, names
    left = {container.name for container in engine.connect().containers.list(all=True, ignore_removed=True)}
    assert not names & left


def test_unknown_release_is_a_usage_error_that_names_the_known(suite: Path) -> None:
    process = start(suite, "--slurm-release=19.05")

    out, _ = process.communicate()

    assert process.returncode == pytest.ExitCode.USAGE_ERROR
    for release in Releases.load().all:
        assert release.version in out
