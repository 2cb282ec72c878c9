"""The workflow that publishes: weekly, scanned first, with commands that there are."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.parser import ParseError, Parser

import tasks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    """The workflow; YAML takes its key `on` for a boolean."""
    content = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    return {("on" if key is True else key): value for key, value in content.items()}


def steps(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The steps with a name, in their order."""
    return {step["id"]: step for step in workflow["jobs"]["images"]["steps"] if "id" in step}


def parse(command: str) -> list[str]:
    """The tasks of a line that calls ./inv; fails where invoke would not take it."""
    parser = Parser(contexts=tasks.ns.to_contexts())
    return [str(found.name) for found in parser.parse_argv(shlex.split(command)[1:])]


def test_images_are_built_and_published_weekly(workflow: dict[str, Any]) -> None:
    (schedule,) = workflow["on"]["schedule"]

    assert schedule["cron"].split()[2:4] == ["*", "*"]
    assert schedule["cron"].split()[4].isdigit(), f"not weekly: {schedule}"


def test_nothing_is_sent_before_it_is_scanned(workflow: dict[str, Any]) -> None:
    assert list(steps(workflow)) == ["build", "bills", "grype", "scan", "push"]
    assert "--dry-run" in steps(workflow)["bills"]["run"]
    assert "--dry-run" not in steps(workflow)["push"]["run"]


def test_platforms_are_published_one_after_another(workflow: dict[str, Any]) -> None:
    strategy = workflow["jobs"]["images"]["strategy"]

    assert strategy["max-parallel"] == 1
    assert [name.endswith("-arm") for name in strategy["matrix"]["runner"]] == [False, True]


@pytest.mark.parametrize("name", ["build", "bills", "push"])
def test_commands_are_tasks_with_options_that_there_are(workflow: dict[str, Any], name: str) -> None:
    images = workflow["jobs"]["images"]["env"]["IMAGES"].strip()
    command = steps(workflow)[name]["run"].replace("$IMAGES", images).replace("$REBUILT", "--rebuilt 17")

    assert parse(command) == ["build" if name == "build" else "push"]


def test_option_that_there_is_not_is_found() -> None:
    with pytest.raises(ParseError):
        parse("./inv push --registri ghcr.io/me")


@pytest.mark.parametrize(("worst", "status"), [("negligible", 0), ("critical", 1)])
def test_scan_fails_on_one_image_and_scans_the_others(
    workflow: dict[str, Any], tmp_path: Path, worst: str, status: int
) -> None:
    pages = tmp_path / ".results/pages"
    pages.mkdir(parents=True)
    for name, found in {"a": "negligible", "b": worst, "c": "negligible"}.items():
        (pages / f"{name}.spdx.json").write_text(found)
    # Fails as grype does, by what its argument says.
    grype = tmp_path / "grype"
    grype.write_text('#!/bin/sh\necho "scanned $1"\n! grep -q critical "${1#sbom:}"\n')
    grype.chmod(0o755)

    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps(workflow)["scan"]["run"]],
        cwd=tmp_path,
        env={**os.environ, "GRYPE": str(grype)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == status, done.stdout
    assert done.stdout.count("scanned") == 3
