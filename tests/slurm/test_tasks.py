"""What a person types: `invoke up` and its companions, as processes of their own."""

from __future__ import annotations

import re

import pytest

from fixtures.tasks import Invoke
from slurm_testbed.releases import Release


def test_up_shows_a_job_and_down_removes_it(invoke: Invoke, slurm_release: Release) -> None:
    up = invoke("up", "--release", slurm_release.version, "--nodes", "2")
    assert up.returncode == 0, up.stderr
    assert re.search(r"up\s+infinite\s+2\s+idle n\[1-2\]", up.stdout), up.stdout
    assert "Job 1 is COMPLETED" in up.stdout
    assert "uid=1000(alice)" in up.stdout

    shell = invoke("shell", "--user", "bob", "--command", "id -un; exit 7")
    token = invoke("token")
    logs = invoke("logs", "--daemon", "slurmctld")
    down = invoke("down")
    again = invoke("status")

    assert (shell.returncode, shell.stdout.strip()) == (7, "bob")
    assert re.fullmatch(r"SLURM_JWT=\S+\.\S+\.\S+\n", token.stdout)
    assert "Running as primary controller" in logs.stdout
    assert "removed container" in down.stdout
    assert again.returncode == 1
    assert "no cluster of `invoke up` runs here\nHint: start one: invoke up" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("up", "--release", "19.05"), 2, "19.05"),
        (("up", "--nodes", "0"), 2, "at least one node"),
        (("build", "--image", "slurm-singel-node"), 2, "slurm-single-node"),
        (("reproduce", "munge-mismatsch"), 2, "did you mean munge-mismatch"),
        (("check", "--only", "nothing"), 2, "no check nothing"),
    ],
)
def test_bad_argument_is_one_sentence(invoke: Invoke, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = invoke(*arguments)

    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_shown_also_by_tasks_that_must_be_given_something(invoke: Invoke) -> None:
    done = invoke("save", "--help")

    assert done.returncode == 0, done.stderr
    assert "Example: invoke save slurm-24.11.tar" in done.stdout


def test_doctor_names_the_cause_in_a_pasted_log(invoke: Invoke) -> None:
    done = invoke("doctor", "--log", "-", stdin="error: Munge decode failed: Invalid credential\n")

    assert "munge-mismatch: the hosts have different munge keys" in done.stdout
