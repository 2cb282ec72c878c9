"""Looks at the queue: one for all sessions together, at most one a second unless somebody is about to start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app_sessions.errors import SlurmError
from app_sessions.slurm.jobs import SlurmJob

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """What the queue was.

    Attributes:
        began: when it was asked for, by time.monotonic.
        jobs: all jobs, by id.
    """

    began: float
    jobs: dict[int, SlurmJob]


class Looks:
    """Asks for the queue again and again, and tells whoever waits for it.

    Args:
        ask: asks Slurm for its jobs.
        pace: how many seconds there are between two looks.
        then: what is done after each look, before those who wait hear of it.
        changed: called when Slurm stops or begins to answer.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[list[SlurmJob]]],
        pace: Callable[[], float],
        then: Callable[[Look], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self._ask, self._pace, self._then, self._changed = ask, pace, then, changed
        self._hurry = asyncio.Event()
        self._new = asyncio.Condition()
        self.latest: Look | None = None
        #: Why Slurm did not answer last; None before it was asked.
        self.trouble: str | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._hurry.clear()
            await self._look()
            # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes as what it waits for is done.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace()):
                    await self._hurry.wait()

    async def _look(self) -> None:
        before, began = self.trouble, time.monotonic()
        try:
            jobs = await self._ask()
        except SlurmError as error:
            self.trouble = str(error)
        except Exception as error:
            # Nobody else looks: the next look comes, whatever this is.
            self.trouble = f"Slurm's answer is not understood: {type(error).__name__}: {error}"
            if self.trouble != before:
                log.exception("a look at the queue failed")
        else:
            self.trouble = ""
            self.latest = Look(began, {job.job_id: job for job in jobs})
            try:
                await self._then(self.latest)
            except Exception:
                # The database may be away; the next look comes.
                log.exception("what follows a look at the queue failed")
        if self.trouble != before:
            if self.trouble:
                log.warning("%s", self.trouble)
            self._changed()
        async with self._new:
            self._new.notify_all()

    def hurry(self) -> None:
        """Look at once, or as soon as the present look is over."""
        self._hurry.set()

    async def fresh(self) -> Look:
        """A look that begins now; waits as long as Slurm does not answer."""
        moment = time.monotonic()
        self.hurry()
        return await self._after(moment)

    async def next(self, look: Look) -> Look:
        """The look that follows one; waits as long as Slurm does not answer."""
        return await self._after(look.began)

    async def _after(self, moment: float) -> Look:
        async with self._new:
            await self._new.wait_for(lambda: self.latest is not None and self.latest.began > moment)
        assert self.latest is not None
        return self.latest
