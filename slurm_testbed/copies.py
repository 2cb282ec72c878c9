"""A folder that a cluster does not share: copied there before a command, and back after it.

The commands of `on_path` run this file by itself, so that it imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

#: By its name below the folder, what tells that a file was changed; None for a folder.
Seen = dict[str, list[int] | None]
#: Exit status of tar: a file has grown meanwhile, as a job writes it.
_CHANGED = 1


def copy_in(root: Path, state: Path, command: Sequence[str]) -> None:
    """Bring what the caller has changed, made or removed since the last copy; else jobs' files stay as they are there.

    Args:
        root: the folder, which has the same path there.
        state: a file that remembers the last copy.
        command: runs another one there with its standard input, as `docker exec --interactive NAME`.

    Raises:
        CalledProcessError: it did not; with what was said.
    """
    before, seen = _read(state), _look(root)
    _forget(root, before.keys() - seen.keys(), command)
    packed = io.BytesIO()
    # Its times have fractions of a second.
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in [".", *(name for name in seen if name not in before or seen[name] != before[name])]:
            with contextlib.suppress(FileNotFoundError):  # it was removed just now
                archive.add(root / name, name, recursive=False)
    _run([*command, "sh", "-c", 'mkdir -p "$0" && tar -C "$0" -xf -', str(root)], packed.getvalue())
    _write(state, seen)


def copy_out(root: Path, state: Path, command: Sequence[str]) -> None:
    """Bring what jobs wrote and removed; what the caller has changed, made or removed since the last copy stays so.

    Args:
        root: the folder, which has the same path there.
        state: a file that remembers the last copy; without one nothing has been copied, and nothing is.
        command: runs another one there, as for `copy_in`.

    Raises:
        CalledProcessError: it did not; with what was said.
    """
    before, now = _read(state), _look(root)
    if not state.exists():
        return
    _forget(root, before.keys() - now.keys(), command)
    own = {name for name, seen in now.items() if seen and seen != before.get(name)}
    packed = _run([*command, "tar", "-C", str(root), "--format=pax", "-cf", "-", "."], allowed=_CHANGED)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = [member for member in archive if os.path.normpath(member.name) not in own]
        for member in members:
            if not member.isdir():  # a file that nobody may write is replaced all the same
                with contextlib.suppress(FileNotFoundError):
                    (root / member.name).unlink()
        # As it is: it comes from a tar that packed a folder. (Python 3.11.2, Debian 12's, has no argument for it.)
        archive.extraction_filter = lambda member, _: member
        archive.extractall(root, members, numeric_owner=True)  # noqa: S202
        there = {os.path.normpath(member.name) for member in archive.getmembers()}
    for name in sorted(before.keys() & now.keys() - own - there, reverse=True):
        _remove(root / name, now[name])
    # What stayed is still to be brought there.
    known = {name: seen for name, seen in _look(root).items() if name not in own}
    _write(state, known | {name: before[name] for name in own if name in before})


def _look(root: Path) -> Seen:
    seen: Seen = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                file = [found.st_mtime_ns, found.st_size, found.st_mode, found.st_ino]
                seen[str(path.relative_to(root))] = None if stat.S_ISDIR(found.st_mode) else file
    return seen


def _read(state: Path) -> Seen:
    found: Seen = json.loads(state.read_text()) if state.exists() else {}
    return found


def _write(state: Path, seen: Seen) -> None:
    aside = state.with_suffix(".new")
    aside.write_text(json.dumps(seen))
    aside.replace(state)


def _remove(path: Path, seen: list[int] | None) -> None:
    """What a job has removed there; what no archive holds, as a socket, was never there."""
    if seen is None:
        with contextlib.suppress(OSError):  # the caller has put something into it
            path.rmdir()
    elif stat.S_ISREG(seen[2]) or stat.S_ISLNK(seen[2]):
        path.unlink(missing_ok=True)


def _forget(root: Path, names: Iterable[str], command: Sequence[str]) -> None:
    if listed := "\0".join(names):
        _run([*command, "sh", "-c", 'cd "$0" && xargs -0 rm -rf --', str(root)], os.fsencode(listed))


def _run(argv: Sequence[str], stdin: bytes = b"", *, allowed: int = 0) -> bytes:
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    if done.returncode not in {0, allowed}:
        done.check_returncode()
    return done.stdout


if __name__ == "__main__":
    _, direction, folder, remembered, *docker_exec = sys.argv
    try:
        with Path(f"{remembered}.lock").open("w") as lock:  # commands may run at the same time
            fcntl.flock(lock, fcntl.LOCK_EX)
            {"in": copy_in, "out": copy_out}[direction](Path(folder), Path(remembered), docker_exec)
    except subprocess.CalledProcessError as error:
        sys.exit(f"the folder was not copied: {error.stderr.decode(errors='replace').strip()}")
