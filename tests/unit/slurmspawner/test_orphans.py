"""No job without a record: whatever interrupts a start, the hub knows the job or ends it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import batchspawner
import pytest
from batchspawner import JobStatus
from jupyterhub_slurmspawner import SlurmSpawner

from tests.unit.slurmspawner.conftest import Make, prints, run, shell

STOCK, OURS = batchspawner.SlurmSpawner, SlurmSpawner
AWAY = "scancel: error: Kill job error on job id 5: Unable to contact slurm controller (connect failure)"


class Slurm:
    """Commands that know one job, by files: it is there from `submit` until `cancel`."""

    def __init__(self, folder: Path) -> None:
        self.comment, self.cancelled = folder / "comment", folder / "cancelled"

    def settings(self, *, state: str = "PENDING", sbatch: float = 0, squeue: float = 0) -> dict[str, str]:
        """Of a spawner; sbatch and squeue take so many seconds."""
        ended = f"if [ -e {self.cancelled} ]; then echo CANCELLED 2026-01-01T10:00:00 None n1; exit; fi"
        return {
            # Our spawner's mark is the last argument.
            "batch_submit_cmd": shell(f'sleep {sbatch}; echo "$*" > {self.comment}; echo 5'),
            "batch_query_cmd": shell(f"sleep {squeue}; {ended}; echo {state} 2026-01-01T10:00:00 None n1"),
            "batch_cancel_cmd": f"echo {{job_id}} >> {self.cancelled}",
        }

    def find(self) -> str:
        """Our spawner's question for the job that has its mark."""
        known = f"echo {{moment}} 5 PENDING $(sed s/--comment=// {self.comment})"
        return shell(f"echo {{moment}} 4 RUNNING '(null)'; if [ -e {self.comment} ]; then {known}; fi")

    @property
    def job(self) -> str:
        """What becomes of the job."""
        if not self.comment.exists():
            return "none"
        return "cancelled" if self.cancelled.exists() else "lives"


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    """Commands of a cluster without jobs."""
    return Slurm(tmp_path)


def ours(kind: type, slurm: Slurm) -> dict[str, str]:
    """Settings that stock batchspawner does not have."""
    return {"batch_find_cmd": slurm.find()} if kind is OURS else {}


async def give_up(spawner: Any, after: float) -> None:
    """What the hub does when start_timeout is over: it cancels the start, and stops what then polls as alive."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(spawner.start(), after)
    if await spawner.poll() is None:
        await spawner.stop()


@pytest.mark.row("H-18.3")
@pytest.mark.parametrize(("kind", "job"), [(STOCK, "lives"), (OURS, "cancelled")])
def test_start_that_is_cancelled_while_squeue_runs_leaves_no_job(
    make_spawner: Make, slurm: Slurm, kind: type, job: str
) -> None:
    """batchspawner takes the cancelled question for the answer "there is no such job"."""
    spawner = make_spawner(kind, **slurm.settings(squeue=0.6), **ours(kind, slurm))

    run(give_up(spawner, after=0.3))

    assert slurm.job == job


@pytest.mark.row("H-18.3")
@pytest.mark.parametrize(("kind", "job"), [(STOCK, "lives"), (OURS, "cancelled")])
def test_start_that_is_cancelled_while_sbatch_runs_leaves_no_job(
    make_spawner: Make, slurm: Slurm, kind: type, job: str
) -> None:
    spawner = make_spawner(kind, **slurm.settings(sbatch=0.6), **ours(kind, slurm))

    async def start_and_look() -> None:
        await give_up(spawner, after=0.2)
        await asyncio.sleep(1)  # longer than sbatch: what it does is done

    run(start_and_look())

    assert slurm.job == job


@pytest.mark.row("H-18.3")
@pytest.mark.parametrize(("kind", "job"), [(STOCK, "lives"), (OURS, "cancelled")])
@pytest.mark.parametrize("sbatch", [0, 0.6], ids=["after sbatch", "during sbatch"])
def test_hub_that_ends_during_a_start_finds_the_job_again(
    make_spawner: Make, slurm: Slurm, kind: type, job: str, sbatch: float
) -> None:
    settings = {**slurm.settings(sbatch=sbatch), **ours(kind, slurm)}
    spawner = make_spawner(kind, **settings)

    async def end_of_the_hub() -> None:
        start = asyncio.ensure_future(spawner.start())
        await asyncio.sleep(0.3)
        kept = spawner.orm_spawner.state
        await asyncio.sleep(sbatch)
        # The rest of this hub's life is taken back.
        start.cancel()
        await asyncio.wait([start])
        spawner.orm_spawner.state = kept

    run(end_of_the_hub())
    assert slurm.job == "lives"
    next_hubs = make_spawner(kind, **settings)

    assert run(next_hubs.poll()) == 1
    assert slurm.job == job


@pytest.mark.row("H-18.3")
@pytest.mark.parametrize(("kind", "job"), [(STOCK, "lives"), (OURS, "cancelled")])
def test_stop_asks_until_slurm_has_taken_it(
    make_spawner: Make, slurm: Slurm, kind: type, job: str, tmp_path: Path
) -> None:
    """The hub forgets a server that it stopped, also where stop raises: https://github.com/jupyterhub/batchspawner/issues/171"""
    spawner = make_spawner(kind, job_id="5", **{**slurm.settings(state="RUNNING"), **ours(kind, slurm)})
    slurm.comment.write_text("--comment=any")
    once = tmp_path / "away"
    cancel = spawner.batch_cancel_cmd
    spawner.batch_cancel_cmd = f"if [ -e {once} ]; then {cancel}; else touch {once}; {prints(err=AWAY, code=1)}; fi"

    with contextlib.suppress(RuntimeError):
        run(spawner.stop())

    assert slurm.job == job


def test_sbatch_that_got_no_answer_may_have_left_a_job(make_spawner: Make, slurm: Slurm) -> None:
    spawner = make_spawner(OURS, **slurm.settings(), **ours(OURS, slurm))
    lost = prints(err="sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", code=1)
    spawner.batch_submit_cmd = shell(f'echo "$*" > {slurm.comment}; {lost}')

    run(give_up(spawner, after=5))

    assert slurm.job == "cancelled"


@pytest.mark.parametrize("comment", [r"two\n\nlines", r"\377 is no UTF-8", r"a\n9 RUNNING MARK\nx 9 RUNNING MARK\n"])
def test_comment_of_another_job_neither_hides_the_job_nor_makes_one(
    make_spawner: Make, slurm: Slurm, comment: str
) -> None:
    spawner = make_spawner(OURS, **slurm.settings())
    spawner.job_mark = "the-mark"
    slurm.comment.write_text("--comment=the-mark")
    odd = shell(f"printf '{{moment}} 4 RUNNING {comment.replace('MARK', 'the-mark')}\\n'")
    spawner.batch_find_cmd = f"{odd}; {slurm.find()}"

    run(spawner.stop())

    assert slurm.cancelled.read_text() == "5\n"


def test_start_that_succeeds_is_kept_with_its_run(make_spawner: Make, slurm: Slurm) -> None:
    spawner = make_spawner(OURS, **slurm.settings(state="RUNNING"), **ours(OURS, slurm))

    async def start() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        spawner.state_gethost = lambda: "127.0.0.1"
        start = asyncio.ensure_future(spawner.start())
        await asyncio.sleep(0.2)
        spawner.port = server.sockets[0].getsockname()[1]
        assert await start == ("127.0.0.1", spawner.port)
        server.close()

    run(start())

    kept = spawner.orm_spawner.state
    assert (kept["job_id"], kept["job_run"]) == ("5", "2026-01-01T10:00:00 n1")
    assert run(make_spawner(OURS, **slurm.settings(state="RUNNING")).poll()) is None


@pytest.mark.parametrize("turns", range(5))
def test_start_that_is_cancelled_as_its_port_is_told_ends(
    make_spawner: Make, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    spawner = make_spawner(OURS)

    async def waiting() -> JobStatus:
        return JobStatus.PENDING

    monkeypatch.setattr(spawner, "_status_or_ended", waiting)

    async def end() -> set[asyncio.Task[None]]:
        task = asyncio.create_task(spawner._await_port(asyncio.get_running_loop().time() + 600))
        await asyncio.sleep(0.01)  # it waits for the port
        spawner.port = 4242
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, pending = await asyncio.wait({task}, timeout=2)
        task.cancel()
        return pending

    assert run(end()) == set()
