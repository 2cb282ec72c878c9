"""Where the virtual machine's parts are kept: in the user's cache folder, each under the digest of what went in."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from slurm_testbed.errors import NotReadyError

BUILD_SECONDS = 1800.0


def folder() -> Path:
    """The folder of all of it, made for its owner alone.

    Example:
        >>> folder().name
        'vm'
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "slurm-testbed" / "vm"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Keep other processes from building, starting and stopping meanwhile.

    Raises:
        NotReadyError: another process took too long.
    """
    lock = filelock.FileLock(folder() / "lock", timeout=BUILD_SECONDS)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise NotReadyError(
            "another process to build or start the virtual machine",
            deadline=BUILD_SECONDS,
            last_state=f"{lock.lock_file} is locked",
            hint=f"see who holds it: fuser {lock.lock_file}",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def made_aside(target: Path) -> Iterator[Path]:
    """A new folder that takes its name only when it is complete; then older ones of its kind go.

    Args:
        target: `KIND-DIGEST` in the cache folder.
    """
    kind = target.name.rpartition("-")[0]
    for left in folder().glob(f".{kind}-*"):  # of a build that was killed; we hold the lock
        shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=folder()))
    try:
        yield aside
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for older in folder().glob(f"{kind}-*"):
        if older != target:
            shutil.rmtree(older)
