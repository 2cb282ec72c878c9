"""The house: ./inv makes its environment, and tasks end with one message."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What an environment is made of.
RECIPES = ("pyproject.toml", "requirements.txt", "requirements-dev.txt")

# Stands in for Python: makes an environment at once, notes each installation, and runs -c with the real one.
FAKE_PYTHON = f"""#!/bin/sh
case "$1 $2" in
"-c import ensurepip"*) exit "${{FAKE_TOO_OLD:-0}}" ;;
"-c "*) exec {sys.executable} "$@" ;;
"-m venv")
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python" ;;
"-m pip")
    echo "$@" >> "$FAKE_LOG"
    [ -z "${{FAKE_PIP_FAILS:-}}" ] || {{ echo "ERROR: no matching distribution"; exit 1; }}
    {{
        echo '#!/bin/sh'
        echo 'echo "args=$* pwd=$PWD caller=$SLURM_TESTBED_CALLER_DIR"'
        echo 'exit "${{FAKE_STATUS:-0}}"'
    }} > .venv/bin/invoke
    chmod +x .venv/bin/invoke ;;
esac
"""


@dataclass
class House:
    """A copy of the wrapper in a folder of its own, with a Python that installs nothing."""

    root: Path
    log: Path
    env: dict[str, str]

    def inv(self, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the wrapper and wait for it."""
        return subprocess.run(
            [str(self.root / "inv"), *arguments],
            cwd=cwd or self.root,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def installations(self) -> list[str]:
        """Arguments of every `pip install` so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house whose folder has a space in its name."""
    root, programs = tmp_path / "a house", tmp_path / "bin"
    root.mkdir()
    programs.mkdir()
    for name in ("inv", *RECIPES):
        shutil.copy(ROOT / name, root)
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (programs / name).write_text(FAKE_PYTHON)
        (programs / name).chmod(0o755)
    log = tmp_path / "pip.log"
    return House(root, log, {"PATH": f"{programs}:{os.environ['PATH']}", "FAKE_LOG": str(log)})


def test_inv_at_first_makes_the_environment_and_says_so_in_one_line(house: House) -> None:
    done = house.inv("--list")

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, f"it said: {done.stderr!r}"
    assert "installing what requirements.txt names into .venv" in done.stderr, done.stderr
    assert len(house.installations()) == 1, f"installations: {house.installations()}"
    assert house.installations()[0].endswith("-r requirements.txt -e ."), house.installations()


def test_inv_from_another_folder_runs_in_its_own_and_keeps_the_callers(house: House, tmp_path: Path) -> None:
    done = house.inv("test", "--", "-k", "a b", cwd=tmp_path)

    assert done.stdout == f"args=test -- -k a b pwd={house.root} caller={tmp_path}\n", done.stdout


def test_inv_by_a_link_finds_its_folder(house: House, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(house.root)

    done = subprocess.run(
        [tmp_path / "link/inv", "x"], env=house.env, capture_output=True, text=True, check=False, timeout=60
    )

    assert f"pwd={house.root} " in done.stdout, done.stdout + done.stderr


def test_inv_returns_the_exit_status_of_invoke(house: House) -> None:
    assert house.inv("x", FAKE_STATUS="3").returncode == 3, "the status is lost"


def test_inv_unchanged_installs_nothing_again(house: House) -> None:
    house.inv("a")

    done = house.inv("b")

    assert done.stderr == "", f"it said: {done.stderr!r}"
    assert len(house.installations()) == 1, f"installations: {house.installations()}"


@pytest.mark.parametrize("name", RECIPES)
def test_inv_installs_again_when_a_file_changed(house: House, name: str) -> None:
    house.inv("a")
    with (house.root / name).open("a") as file:
        file.write("# changed\n")

    house.inv("b")

    assert len(house.installations()) == 2, f"installations: {house.installations()}"


def test_inv_in_a_moved_folder_installs_again(house: House, tmp_path: Path) -> None:
    house.inv("a")
    house.root = house.root.rename(tmp_path / "elsewhere")

    house.inv("b")

    assert len(house.installations()) == 2, f"installations: {house.installations()}"


def test_inv_whose_installation_failed_shows_why_and_tries_again(house: House) -> None:
    failed = house.inv("a", FAKE_PIP_FAILS="1")

    assert failed.returncode == 1, f"exit status {failed.returncode}"
    assert "ERROR: no matching distribution" in failed.stderr, failed.stderr
    assert "the environment could not be made" in failed.stderr, failed.stderr
    assert failed.stdout == "", f"invoke ran all the same: {failed.stdout}"
    assert house.inv("b").returncode == 0, "the second attempt fails too"


def test_inv_twice_at_once_installs_once(house: House) -> None:
    running = [
        subprocess.Popen([house.root / "inv", "x"], env=house.env, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]

    answers = [process.communicate(timeout=60)[0] for process in running]

    assert all(answer.startswith("args=x ") for answer in answers), f"answers: {answers}"
    assert len(house.installations()) == 1, f"installations: {house.installations()}"


def test_inv_without_a_recent_python_says_what_to_install(house: House) -> None:
    done = house.inv("x", FAKE_TOO_OLD="1")

    assert done.returncode == 1, f"exit status {done.returncode}"
    assert done.stderr.count("\n") == 1, f"it said: {done.stderr!r}"
    assert "apt-get install python3-venv" in done.stderr, done.stderr


def invoke(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a real task of this repository."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_task_that_fails_ends_with_one_message_and_the_errors_status() -> None:
    done = invoke("engine", DOCKER_HOST="unix:///nowhere.sock")

    assert done.returncode == 3, f"exit status {done.returncode}: {done.stderr}"
    assert done.stderr == (
        "engine: DOCKER_HOST says unix:///nowhere.sock, but no container engine answers there "
        "(no such socket): start that engine, or choose another\n"
    ), done.stderr
    assert done.stdout == "", done.stdout


def test_task_that_fails_shows_its_traceback_when_asked_to() -> None:
    done = invoke("engine", DOCKER_HOST="unix:///nowhere.sock", SLURM_TESTBED_TRACEBACK="1")

    assert "Traceback (most recent call last)" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["test", "--engine", "vm", "--kubernetes"], "give one of them"),
        (["bench", "--repeat", "0"], "--repeat is 1 or more, not 0"),
        (["bench", "--repeat", "abc"], "--repeat is 1 or more, not abc"),
        (["doctor", "--log", "nope.log"], "--log: nope.log cannot be read: No such file or directory"),
        (["matrix", "--minutes", "0.5", "--suites", "nonsense"], "no suite nonsense"),
    ],
)
def test_option_that_cannot_be_right_is_told_before_an_engine_is_looked_for(arguments: list[str], says: str) -> None:
    done = invoke(*arguments, DOCKER_HOST="unix:///nowhere.sock")

    assert done.returncode == 2, f"exit status {done.returncode}: {done.stderr}"
    assert says in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, f"it said: {done.stderr!r}"


def test_doctor_reads_a_log_that_is_not_all_text(tmp_path: Path) -> None:
    (tmp_path / "slurmctld.log").write_bytes(b"error: \xff Zero Bytes were transmitted or received\n")

    done = invoke("doctor", "--log", str(tmp_path / "slurmctld.log"))

    assert done.returncode == 0, done.stderr


def test_list_of_tasks_needs_no_engine() -> None:
    done = invoke("--list", DOCKER_HOST="unix:///nowhere.sock")

    assert done.returncode == 0, done.stderr
    for name in ("engine", "check", "clean"):
        assert f"  {name} " in done.stdout, f"no task {name} in\n{done.stdout}"


def test_check_of_something_unknown_says_what_there_is() -> None:
    done = invoke("check", "--only", "nix")

    assert done.returncode == 2, f"exit status {done.returncode}"
    assert "there are ruff, format" in done.stderr, done.stderr


def test_check_of_workflows_passes() -> None:
    done = invoke("check", "--only", "workflows")

    assert done.returncode == 0, done.stdout + done.stderr
