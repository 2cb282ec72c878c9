"""Looks at the queue end when they are told to, whatever they were about to do."""

from __future__ import annotations

import asyncio

import pytest
from app_sessions.slurm.jobs import SlurmJob
from app_sessions.slurm.looks import Looks


@pytest.mark.parametrize("turns", range(5))
def test_looks_that_are_hurried_while_they_are_cancelled_end(turns: int) -> None:
    async def nothing(*_: object) -> list[object]:
        return []

    async def end() -> set[asyncio.Task[None]]:
        looks = Looks(nothing, lambda: 600, nothing, lambda: None)  # type: ignore[arg-type]
        task = asyncio.create_task(looks.run())
        await looks.fresh()
        await asyncio.sleep(0.01)  # it waits for the next look
        looks.hurry()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, pending = await asyncio.wait({task}, timeout=5)
        task.cancel()
        return pending

    assert asyncio.run(end()) == set()


def test_look_that_fails_as_nobody_foresaw_is_told_and_is_not_the_last() -> None:
    failures = iter([BlockingIOError(11, "Resource temporarily unavailable")])

    async def ask() -> list[SlurmJob]:
        for failure in failures:
            raise failure
        return []

    async def nothing(_: object) -> None:
        return None

    async def look() -> tuple[str | None, str | None]:
        told = asyncio.Event()
        looks = Looks(ask, lambda: 0.01, nothing, told.set)
        task = asyncio.create_task(looks.run())
        await told.wait()
        first = looks.trouble
        await looks.fresh()
        task.cancel()
        return first, looks.trouble

    first, then = asyncio.run(asyncio.wait_for(look(), 10))
    assert "Resource temporarily unavailable" in (first or "")
    assert then == ""
