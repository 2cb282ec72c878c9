"""A folder that is copied: what either side changes arrives on the other, and nothing is undone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slurm_testbed import copies as copies_module
from slurm_testbed.copies import copy_in, copy_out

#: Runs a command as the cluster does, where the folder is another one.
ELSEWHERE = """
import subprocess, sys
_, here, there, *argv = sys.argv
sys.exit(subprocess.run([word.replace(here, there) for word in argv]).returncode)
"""

Copy = Callable[[], None]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The caller's folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The cluster's."""
    return tmp_path / "there"


@pytest.fixture
def copies(here: Path, there: Path, tmp_path: Path) -> tuple[Copy, Copy]:
    """To the cluster and back."""
    command = [sys.executable, "-c", ELSEWHERE, str(here), str(there)]
    state = tmp_path / "state.json"
    return lambda: copy_in(here, state, command), lambda: copy_out(here, state, command)


def texts(folder: Path) -> dict[str, str]:
    """The folder's files."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_all_goes_there_and_what_jobs_write_comes_back(here: Path, there: Path, copies: tuple[Copy, Copy]) -> None:
    (here / "a folder").mkdir()
    (here / "a folder" / "of\ntwo lines").write_text("1")
    (here / "read-only").write_text("1")
    (here / "read-only").chmod(0o444)
    (here / "link").symlink_to("/nowhere")
    into, back = copies

    into()
    assert texts(there) == texts(here)
    (there / "read-only").unlink()
    (there / "read-only").write_text("2")
    (there / "new").write_text("3")
    back()

    assert texts(here) == texts(there)
    assert (here / "link").readlink() == Path("/nowhere")


def test_nothing_comes_back_where_nothing_was_copied(here: Path, there: Path, copies: tuple[Copy, Copy]) -> None:
    there.mkdir()
    (there / "somebody's").write_text("1")

    copies[1]()

    assert texts(here) == {}


def test_what_the_caller_changes_while_a_command_runs_stays_and_arrives(
    here: Path, there: Path, copies: tuple[Copy, Copy]
) -> None:
    for name in ("changed", "removed", "untouched"):
        (here / name).write_text("before")
    into, back = copies
    into()

    (here / "changed").write_text("by the caller")
    (here / "removed").unlink()
    (here / "made").write_text("by the caller")
    (there / "changed").write_text("by the job")
    (there / "untouched").write_text("by the job")
    back()
    wanted = {"changed": "by the caller", "made": "by the caller", "untouched": "by the job"}
    assert texts(here) == wanted
    into()

    assert texts(there) == texts(here) == wanted


def test_what_a_job_writes_between_two_commands_is_not_undone(
    here: Path, there: Path, copies: tuple[Copy, Copy]
) -> None:
    (here / "result").write_text("before")
    into, back = copies
    into()
    back()

    (there / "result").write_text("by the job")
    into()
    back()

    assert texts(here) == {"result": "by the job"}


def test_what_a_job_removes_goes_here_too(here: Path, there: Path, copies: tuple[Copy, Copy]) -> None:
    for name in ("queue.lock", "result.tmp", "of the caller"):
        (here / name).write_text("before")
    (here / "scratch").mkdir()
    (here / "scratch" / "file").write_text("before")
    (here / "kept").mkdir()
    (here / "kept" / "file").write_text("before")
    into, back = copies
    into()

    (there / "queue.lock").unlink()
    (there / "result.tmp").rename(there / "result")
    (there / "of the caller").unlink()
    (here / "of the caller").write_text("changed meanwhile")
    for folder in ("scratch", "kept"):
        (there / folder / "file").unlink()
        (there / folder).rmdir()
    (here / "kept" / "new").write_text("made meanwhile")
    back()

    assert texts(here) == {"result": "before", "of the caller": "changed meanwhile", "kept/new": "made meanwhile"}
    assert not (here / "scratch").exists()


def test_what_no_archive_holds_stays(here: Path, copies: tuple[Copy, Copy], monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(here / "pipe")
    monkeypatch.chdir(here)  # a socket's path may have 107 characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    into, back = copies

    into()
    back()

    assert {path.name for path in here.iterdir()} == {"pipe", "socket"}


def test_commands_at_the_same_time_wait_for_each_others_copies(here: Path, there: Path, tmp_path: Path) -> None:
    for number in range(200):
        (here / f"{number}").write_text("text")
    itself = [sys.executable, "-I", copies_module.__file__]
    rest = [str(here), str(tmp_path / "state"), sys.executable, "-c", ELSEWHERE, str(here), str(there)]
    both = [*itself, "in", *rest], [*itself, "out", *rest]

    def commands(_: int) -> None:
        for _ in range(4):
            for argv in both:
                subprocess.run(argv, check=True)

    with ThreadPoolExecutor() as threads:
        list(threads.map(commands, range(4)))

    assert len(texts(here)) == len(texts(there)) == 200
