"""The workflows: valid, nightly over the releases that there are, and with commands that run here as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurm_testbed.releases import Release, Releases

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
NIGHTLY = ROOT / ".github/workflows/nightly.yml"


@pytest.fixture
def nightly() -> dict[str, Any]:
    """The nightly workflow; YAML takes its key `on` for a boolean."""
    content = yaml.safe_load(NIGHTLY.read_text())
    return {("on" if key is True else key): value for key, value in content.items()}


def step(job: dict[str, Any], id_: str) -> dict[str, Any]:
    (found,) = [step for step in job["steps"] if step.get("id") == id_]
    return found


def run_as_github_does(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step's command with its shell, in the checkout: https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#defaultsrunshell"""
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]
    return subprocess.run(argv, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "check-jsonschema"
    argv = [program, "--builtin-schema", "vendor.github-workflows", path]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.row("U-04.2")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_is_valid(path: Path) -> None:
    done = validate(path)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.row("U-04.2")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    runs-on: ubuntu-24.04\n", ""),
        ("timeout-minutes: 90", "timeout-minutes: long"),
        ("    needs: releases", "    need: releases"),
        ("- run: ./inv engine", "- runs: ./inv engine"),
    ],
)
def test_workflow_with_a_fault_is_not_valid(tmp_path: Path, right: str, wrong: str) -> None:
    text = NIGHTLY.read_text()
    assert right in text
    (tmp_path / "nightly.yml").write_text(text.replace(right, wrong))

    done = validate(tmp_path / "nightly.yml")

    assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.row("U-04.2")
def test_expressions_name_jobs_steps_and_outputs_that_there_are(nightly: dict[str, Any]) -> None:
    text, jobs = NIGHTLY.read_text(), nightly["jobs"]

    outputs = re.findall(r"needs\.(\w+)\.outputs\.(\w+)", text)
    steps = re.findall(r"steps\.(\w+)\.outputs\.(\w+)", text)

    assert outputs, "no job uses another's output"
    assert steps, "no output comes from a step"
    for job, output in outputs:
        assert output in jobs[job]["outputs"], f"job {job} has no output {output}"
        assert any(job == other.get("needs") for other in jobs.values()), f"nothing needs {job}"
    for name, output in steps:
        commands = [found["run"] for job in jobs.values() for found in job["steps"] if found.get("id") == name]
        assert len(commands) == 1, f"steps {name}: {commands}"
        assert f"{output}=" in commands[0], commands[0]


@pytest.mark.row("U-04.1")
def test_workflow_runs_nightly(nightly: dict[str, Any]) -> None:
    (schedule,) = nightly["on"]["schedule"]

    minute, hour, *rest = schedule["cron"].split()

    assert rest == ["*", "*", "*"], f"not every day: {schedule}"
    assert minute.isdigit(), schedule
    assert hour.isdigit(), schedule


@pytest.mark.row("U-04.1")
def test_workflows_matrix_is_every_release_that_there_is(nightly: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "output"
    job = nightly["jobs"]["matrix"]

    done = run_as_github_does(step(nightly["jobs"]["releases"], "list")["run"], GITHUB_OUTPUT=str(output))

    assert done.returncode == 0, done.stderr
    name, _, listed = output.read_text().strip().partition("=")
    assert json.loads(listed) == [release.minor for release in Releases.load().all]
    assert nightly["jobs"]["releases"]["outputs"] == {name: f"${{{{ steps.list.outputs.{name} }}}}"}
    assert job["strategy"]["matrix"] == {"release": f"${{{{ fromJSON(needs.releases.outputs.{name}) }}}}"}
    assert step(job, "matrix")["env"]["RELEASE"] == "${{ matrix.release }}"


def test_every_deep_test_runs_in_some_night(nightly: dict[str, Any]) -> None:
    """Nothing else runs them by itself."""
    # Not the mark in the text of a test that the tests of marks write.
    marked = re.compile(r"(?<!\\n@)pytest\.mark\.deep\b")
    found = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")
             if marked.search(path.read_text())}  # fmt: skip
    job = nightly["jobs"]["deep"]

    folders = [folder for group in job["strategy"]["matrix"]["folders"] for folder in group.split()]

    assert sorted(folders) == sorted(found)
    done = run_as_github_does(step(job, "deep")["run"].replace("./inv", "echo"), FOLDERS="hub publish")
    assert done.stdout == "test -- -m deep tests/hub tests/publish\n", done.stderr


@pytest.mark.row("U-04.1")
def test_workflows_name_no_release() -> None:
    for path in WORKFLOWS:
        assert [release.minor for release in Releases.load().all if release.minor in path.read_text()] == [], path


@pytest.mark.deep
@pytest.mark.row("U-04.3")
def test_workflows_command_runs_here_on_one_suite(
    nightly: dict[str, Any], tmp_path: Path, built_release: Release
) -> None:
    command = step(nightly["jobs"]["matrix"], "matrix")["run"]

    done = run_as_github_does(command, RELEASE=built_release.minor, SUITES="accounting", RUNNER_TEMP=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads((tmp_path / "matrix.json").read_text())["cells"]
    assert {(cell["release"], cell["suite"]) for cell in cells} == {(built_release.version, "accounting")}
    assert {cell["outcome"] for cell in cells} == {"proved"}, done.stdout
    assert all(cell["passed"] for cell in cells)
    assert f"{built_release.version}-accounting-single" in (tmp_path / "junit.xml").read_text()
