"""What both versions of cgroups have in common."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

#: Our folder in a job's folder. While it is there Slurm takes it for one more step that is still alive (`_is_empty_dir`
#: in src/plugins/cgroup/common/cgroup_common.c, in 22.05 as in 26.05), and leaves the job's folder, with the kernel's
#: counters, until we have read them after the job's end.
HOLD: Final = "observability"

_JOB = re.compile(r"job_(\d+)")
# "s" and 13 digits of Crockford's Base32: src/common/sluid.c of Slurm 26.05.
_SLUID = re.compile(r"s[0-9A-HJKMNP-TV-Z]{13}")

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class JobFolder:
    """The folder of a job.

    Attributes:
        path: beneath the hierarchy's root, or in v1 each controller's: `/slurm_n1/uid_1000/job_12`.
        node: the node whose slurmd made it, where the build is for several on one host (--enable-multiple-slurmd).

    Example:
        >>> JobFolder("/slurm_n1/uid_1000/job_12", node="n1").job_id
        12
    """

    path: str
    node: str | None = None

    @property
    def name(self) -> str:
        """`job_12`, or from Slurm 26.05 on the job's SLUID."""
        return self.path.rpartition("/")[2]

    @property
    def job_id(self) -> int | None:
        """The job's id, where the folder is named by it."""
        match = _JOB.fullmatch(self.name)
        return int(match[1]) if match else None

    @staticmethod
    def is_one(name: str) -> bool:
        """Whether a folder of this name is a job's."""
        return bool(_JOB.fullmatch(name) or _SLUID.fullmatch(name))


@dataclass(frozen=True)
class StepReading:
    """What the kernel says of a step."""

    name: str
    cpu_seconds: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Reading:
    """What the kernel says of a job on this node; None is what it did not say, and `unread` why.

    Attributes:
        read_at: when its CPU time was read, by the monotonic clock.
        cpu_seconds: user and system, since the folder was made.
        memory_bytes: charged to the job now, with its files in the page cache.
        peak_memory_bytes: the most that it was.
        memory_limit_bytes: None also where there is no limit.
        cpus: how many CPUs the job is bound to; None where it is bound to none.
        suspended: whether processes of it are frozen.
    """

    read_at: float
    cpu_seconds: float | None
    memory_bytes: int | None
    peak_memory_bytes: int | None
    memory_limit_bytes: int | None
    cpus: int | None
    suspended: bool
    steps: tuple[StepReading, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class File(Generic[_Value]):
    """A file in which the kernel counts something for a group.

    Attributes:
        controller: the hierarchy of v1 that has it; empty under v2, which has one.
        name: beneath the group's folder.
        parse: makes a value of its text.
    """

    controller: str
    name: str
    parse: Callable[[str], _Value]


class Cgroups(ABC):
    """The folders of the jobs on this host.

    Args:
        root: where the hierarchy is mounted.
    """

    cpu_seconds: File[float]
    memory: File[int]
    peak_memory: File[int]
    memory_limit: File[int | None]
    cpus: File[int | None]
    #: Of a step's folder.
    frozen: File[bool]

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def watched(self) -> list[Path]:
        """The folders in which those of jobs appear, or those that lead to them."""

    @abstractmethod
    def folders(self) -> list[JobFolder]:
        """The jobs' folders that are there."""

    @abstractmethod
    def folder_at(self, path: Path) -> JobFolder | None:
        """The job whose folder this is; None where it is no job's."""

    @abstractmethod
    def nodes(self) -> list[str]:
        """The nodes whose names the folders tell."""

    @abstractmethod
    def places(self, folder: JobFolder) -> list[tuple[Path, Path]]:
        """The job's folders in the hierarchies that count, each after the folder that Slurm locks for it."""

    def steps(self, folder: JobFolder) -> list[str]:
        """The names of the steps that have a folder still: `0`, `batch`, `extern`."""
        found: dict[str, None] = {}
        for _, place in self.places(folder):
            found |= dict.fromkeys(children(place, "step_"))
        return sorted(name.removeprefix("step_") for name in found)

    def processes(self, folder: JobFolder) -> Iterator[int]:
        """The ids of the processes in the job's steps."""
        for _, place in self.places(folder):
            for step in children(place, "step_"):
                for listing in (place / step).rglob("cgroup.procs"):
                    with contextlib.suppress(OSError):
                        yield from map(int, listing.read_text().split())

    def read(self, folder: JobFolder) -> Reading:
        """Read what the kernel counts for a job."""
        files = FileReader()

        def value(file: File[_Value], step: str = "", *, optional: bool = False) -> _Value | None:
            return files.value(self._path(file, folder, step), file.parse, optional=optional)

        # The two belong together.
        read_at, cpu_seconds = time.monotonic(), value(self.cpu_seconds)
        memory, peak = value(self.memory), value(self.peak_memory, optional=True)
        if memory is not None and peak is None and not files.unread:
            why = "this kernel has none, memory.peak came with Linux 5.19"
            files.unread.append(f"{self._path(self.peak_memory, folder)}: {why}")
        steps = [(step, f"step_{step}/") for step in self.steps(folder)]
        frozen: list[bool | None] = [value(self.frozen, place, optional=True) for _, place in steps]
        return Reading(
            read_at=read_at,
            cpu_seconds=cpu_seconds,
            memory_bytes=memory,
            peak_memory_bytes=peak,
            memory_limit_bytes=value(self.memory_limit),
            cpus=value(self.cpus, optional=True),
            suspended=any(frozen),
            steps=tuple(
                # One that has just ended, or that Slurm counts in one hierarchy alone, is nothing to tell.
                StepReading(
                    step, value(self.cpu_seconds, place, optional=True), value(self.memory, place, optional=True)
                )
                for step, place in steps
            ),
            unread=tuple(files.unread),
        )

    def _path(self, file: File[Any], folder: JobFolder, step: str = "") -> Path:
        return self.root / file.controller / folder.path.lstrip("/") / f"{step}{file.name}"

    # --- keeping a folder until it has been read ----------------------------------------------------------

    def is_held(self, folder: JobFolder) -> bool:
        """Whether all that is there of the job is held."""
        places = [place for _, place in self.places(folder) if place.is_dir()]
        return bool(places) and all((place / HOLD).is_dir() for place in places)

    def hold(self, folder: JobFolder) -> None:
        """Keep the job's folder until `release`; a second call does nothing.

        Raises:
            OSError: the kernel refuses, e.g. where the hierarchy is mounted read-only.
        """
        for _, place in self.places(folder):
            try:
                (place / HOLD).mkdir(parents=self._is_ours_to_make(place))
            except OSError as error:
                # It ended meanwhile, or is held already.
                if error.errno not in {errno.ENOENT, errno.EEXIST}:
                    raise

    def release(self, folder: JobFolder) -> bool:
        """Let go of a job's folder, and remove it as Slurm would have: under Slurm's own lock, and only if it is empty.

        Returns:
            False where Slurm has the lock just now: ask again.
        """
        for locked, place in self.places(folder):
            if not (place / HOLD).is_dir():
                continue
            with _lock(locked) as got_it:
                if not got_it:
                    return False
                for path in (place / HOLD, place, *self._above(place)):
                    try:
                        path.rmdir()
                    except OSError as error:
                        if error.errno == errno.ENOENT:
                            continue
                        # Other steps, or other jobs of the user, are there: the last one removes it.
                        break
        return True

    def _is_ours_to_make(self, _place: Path) -> bool:
        """Whether a folder that is not there yet may be made before Slurm makes it, which takes it as it is then."""
        return False

    def _above(self, _place: Path) -> list[Path]:
        """What may be left empty above a job's folder."""
        return []


def read_file(path: Path) -> str:
    """The text of a file of the kernel's.

    Raises:
        OSError: it is not there, or the group has just been removed (ENODEV).
    """
    # Several hundred of them are read each time: without a buffer, and without pathlib's layers.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65536).decode()
    finally:
        os.close(descriptor)


class FileReader:
    """Reads the files of one job, and notes what could not be read."""

    def __init__(self) -> None:
        self.unread: list[str] = []

    def value(self, path: Path, parse: Callable[[str], _Value], *, optional: bool = False) -> _Value | None:
        """What a file says, or None.

        Args:
            path: the file.
            parse: what makes a value of its text.
            optional: that it is missing is nothing to tell.
        """
        try:
            return parse(read_file(path))
        except OSError as error:
            missing = error.errno in {errno.ENOENT, errno.ENODEV}
            if not (optional and missing):
                self.unread.append(f"{path}: {error.strerror}")
        except (ValueError, KeyError, IndexError) as error:
            self.unread.append(f"{path}: not understood ({error})")
        return None


def count_cpus(text: str) -> int | None:
    """How many CPUs a list of them names; None for an empty one, which binds to none.

    Example:
        >>> count_cpus("0-3,8\\n")
        5
    """
    total = 0
    for span in filter(None, text.strip().split(",")):
        first, _, last = span.partition("-")
        total += int(last or first) - int(first) + 1
    return total or None


def children(folder: Path, prefix: str) -> list[str]:
    """The names of the folders in a folder that begin so; none where it is gone."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name.startswith(prefix) and entry.is_dir())
    except OSError:
        return []


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Take the lock under which Slurm makes and removes folders (`common_cgroup_lock`), if nobody has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
