"""Looks at the queue end when they are told to, whatever they were about to do."""

from __future__ import annotations

import asyncio

import pytest
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
