"""Keeps each job's folder until the kernel's counters in it have been read.

A job may be over within a tenth of a second, and its folder with it: who reads every few seconds never sees it. So the
keeper is told by inotify when a folder is made, and holds it at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from pathlib import Path

from inotify_simple import INotify, flags

from slurm_observability.node.cgroups import Cgroups, JobFolder
from slurm_observability.node.jobs import Jobs

log = logging.getLogger(__name__)

#: A folder of which no prolog told, without a step for so many seconds, is let go; of a job that runs, after an hour.
ABANDONED_AFTER = 60.0
IDLE_AFTER = 3600.0
_NICE = -10


class Keeper(threading.Thread):
    """Watches the folders in which those of jobs appear.

    `let_go` may be called from any thread.

    Args:
        cgroups: this host's.
        jobs: the running jobs, of which it notes what it missed.
        interval: seconds between two looks at what is left over.
    """

    def __init__(self, cgroups: Cgroups, jobs: Jobs, *, interval: float = 10) -> None:
        super().__init__(name="keeper", daemon=True)
        self._cgroups = cgroups
        self._jobs = jobs
        self._interval = interval
        self._inotify = INotify()
        self._watches: dict[int, Path] = {}
        self._refused: str | None = None
        self._letting_go: set[JobFolder] = set()
        #: Whose removal is ours; bounded, for a job's folder comes again only where the job is requeued.
        self._let_go: deque[JobFolder] = deque(maxlen=1000)
        self._idle_since: dict[JobFolder, float] = {}
        self._watch()
        for folder in cgroups.folders():
            self._take_over(folder)

    @property
    def trouble(self) -> str | None:
        """Why folders cannot be held; None where they can."""
        return self._refused

    def run(self) -> None:
        # The folder of a job of `true` is there for some 30 ms, on a node whose cores are all at work.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        looked = time.monotonic()
        while True:
            self.look(timeout=0.05 if self._letting_go else 1)
            if time.monotonic() - looked >= self._interval:
                looked = time.monotonic()
                self.sweep()

    def let_go(self, folder: JobFolder) -> None:
        """A job's counters have been read: its folder may go, as soon as Slurm's lock is free."""
        self._let_go.append(folder)
        if not self._cgroups.release(folder):
            self._letting_go.add(folder)

    def look(self, *, timeout: float) -> None:
        """Wait for folders to appear, and hold those of jobs.

        Args:
            timeout: seconds.
        """
        for event in self._inotify.read(timeout=int(timeout * 1000)):
            if event.mask & flags.Q_OVERFLOW:
                self._watch()
                for folder in self._cgroups.folders():
                    self._take_over(folder)
            elif event.mask & flags.IGNORED:
                self._watches.pop(event.wd, None)
            elif event.wd in self._watches:
                self._happened(self._watches[event.wd] / event.name, made=bool(event.mask & flags.CREATE))
        for folder in list(self._letting_go):
            if self._cgroups.release(folder):
                self._letting_go.discard(folder)

    def sweep(self) -> None:
        """Let go of folders whose job's epilog never told of its end."""
        now = time.monotonic()
        idle = [f for f in self._cgroups.folders() if self._cgroups.is_held(f) and not self._cgroups.steps(f)]
        self._idle_since = {folder: self._idle_since.get(folder, now) for folder in idle}
        for folder, since in self._idle_since.items():
            job = self._jobs.of(folder)
            if now - since > (IDLE_AFTER if job else ABANDONED_AFTER):
                self._jobs.mark_incomplete(folder, f"{folder.path} was let go after {IDLE_AFTER:.0f} s without a step")
                self.let_go(folder)

    def _happened(self, path: Path, *, made: bool) -> None:
        folder = self._cgroups.folder_at(path)
        if made and folder:
            with contextlib.suppress(ValueError):
                self._let_go.remove(folder)
            self._hold(folder)
        elif made:
            # It may lead to jobs' folders, which may be there already.
            self._watch()
            for each in self._cgroups.folders():
                if not self._cgroups.is_held(each):
                    self._hold(each)
        elif folder and folder not in self._let_go:
            self._jobs.mark_incomplete(folder, f"{folder.path} was removed before it could be held")

    def _take_over(self, folder: JobFolder) -> None:
        """Hold a folder that was there before us."""
        if self._cgroups.is_held(folder):
            return
        self._hold(folder)
        # The extern step (PrologFlags=Contain) lives as long as the job, and so does the folder then.
        if "extern" not in self._cgroups.steps(folder):
            self._jobs.mark_incomplete(folder, "the agent was not there from the job's beginning")

    def _hold(self, folder: JobFolder) -> None:
        try:
            self._cgroups.hold(folder)
        except OSError as error:
            if not self._refused:
                log.error("cannot hold %s: %s: the last readings of jobs will be missing", folder.path, error.strerror)
            self._refused = f"{folder.path} could not be held: {error.strerror}"

    def _watch(self) -> None:
        for path in self._cgroups.watched():
            # It may be gone meanwhile; the same folder again is the same watch.
            with contextlib.suppress(FileNotFoundError):
                mask = flags.CREATE | flags.DELETE | flags.ONLYDIR
                self._watches[self._inotify.add_watch(path, mask)] = path
