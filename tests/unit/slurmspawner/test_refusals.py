"""A server that does not start says why: at once, and in the words of Slurm."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import batchspawner
import pytest
from jupyterhub.utils import format_exception
from jupyterhub_slurmspawner import SlurmSpawner
from tornado import web

from tests.unit.slurmspawner.conftest import Make, prints, run

STOCK, OURS = batchspawner.SlurmSpawner, SlurmSpawner
FAILED = "sbatch: error: Batch job submission failed: "
REFUSALS = {
    f"sbatch: error: invalid partition specified: none\n{FAILED}Invalid partition name specified": 400,
    f"{FAILED}Requested node configuration is not available": 400,
    f"{FAILED}Invalid account or account/partition combination specified": 400,
    f"{FAILED}Unable to contact slurm controller (connect failure)": 503,
}
RUNNING = prints("RUNNING 2026-01-01T10:00:00 None n1")


def failure(spawner: Any) -> BaseException:
    """What start raises while the hub would wait, or that it did not."""
    try:
        run(asyncio.wait_for(spawner.start(), min(spawner.start_timeout, 2)))
    except BaseException as error:
        return error
    raise AssertionError("it started")


@pytest.mark.row("H-19.1", "H-19.2", "H-19.3", "H-19.5")
@pytest.mark.parametrize(("stderr", "status"), REFUSALS.items(), ids=[text.split(": ")[-1] for text in REFUSALS])
@pytest.mark.parametrize("kind", [STOCK, OURS])
def test_refusal_is_an_answer_with_sbatchs_words(make_spawner: Make, kind: type, stderr: str, status: int) -> None:
    """https://github.com/jupyterhub/batchspawner/issues/308"""
    error = failure(make_spawner(kind, batch_submit_cmd=prints(err=stderr, code=1)))

    if kind is STOCK:
        assert not isinstance(error, web.HTTPError)
        assert format_exception(error, only_jupyterhub=True) == (None, None)
        return
    assert isinstance(error, web.HTTPError)
    assert error.status_code == status
    message, _ = format_exception(error, only_jupyterhub=True)
    assert message.endswith("; ".join(line.removeprefix("sbatch: error: ") for line in stderr.splitlines()))


def test_sbatch_that_does_not_run_is_the_hubs_own_error(make_spawner: Make) -> None:
    error = failure(make_spawner(OURS, batch_submit_cmd=prints(err="sudo: unknown user nobody-here", code=1)))

    assert isinstance(error, RuntimeError)
    assert "unknown user" in str(error)


@pytest.mark.parametrize(("kind", "raised"), [(STOCK, TimeoutError), (OURS, web.HTTPError)])
def test_job_that_died_before_its_server_came_is_noticed_at_once(
    make_spawner: Make, kind: type, raised: type[Exception], tmp_path: Any
) -> None:
    """https://github.com/jupyterhub/batchspawner/issues/253, mended by pull request 254 after release 1.3.0"""
    asked = tmp_path / "asked"
    failed = prints("FAILED 2026-01-01T10:00:00 NonZeroExitCode n1")
    query = f"if [ -e {asked} ]; then {failed}; else touch {asked}; {RUNNING}; fi"
    error = failure(make_spawner(kind, batch_submit_cmd=prints("5"), batch_query_cmd=query, startup_poll_interval=0.1))

    assert isinstance(error, raised)
    assert kind is STOCK or "Job 5 ended before its server answered: FAILED" in str(error)


@pytest.mark.parametrize(("kind", "words"), [(STOCK, ""), (OURS, "job 5 still waits in the queue (Resources)")])
def test_end_of_patience_says_what_was_waited_for(make_spawner: Make, kind: type, words: str) -> None:
    pending = prints("PENDING N/A (Resources) n/a")
    error = failure(make_spawner(kind, batch_submit_cmd=prints("5"), batch_query_cmd=pending, start_timeout=2))

    assert words in str(error)
    assert (str(error) == "") == (kind is STOCK)


@pytest.mark.parametrize(("kind", "logged"), [(STOCK, True), (OURS, False)])
def test_log_has_no_token(
    make_spawner: Make, kind: type, logged: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner = make_spawner(kind, batch_submit_cmd=prints(err=f"{FAILED}no", code=1))
    monkeypatch.setattr(spawner.log, "propagate", True)
    with caplog.at_level(logging.DEBUG, logger=spawner.log.name):
        failure(spawner)

    assert caplog.records
    assert ("the-token" in caplog.text) == logged


@pytest.mark.parametrize(("kind", "times"), [(STOCK, 2), (OURS, 1)])
def test_progress_says_each_thing_once(make_spawner: Make, kind: type, times: int) -> None:
    spawner = make_spawner(kind, job_id="5")
    spawner.job_status = "PENDING N/A (Resources) n/a"

    async def listen() -> list[str]:
        said: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                async for event in spawner.progress():
                    said.append(event["message"])  # noqa: PERF401 # it never comes to an end
        return said

    assert len(run(listen())) == times


@pytest.mark.parametrize(("kind", "started"), [(STOCK, False), (OURS, True)])
def test_port_ends_the_wait_at_once(make_spawner: Make, kind: type, started: bool) -> None:
    spawner = make_spawner(kind, batch_submit_cmd=prints("5"), batch_query_cmd=RUNNING, startup_poll_interval=9)
    spawner.state_gethost = lambda: "127.0.0.1"

    async def start() -> bool:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        start = asyncio.ensure_future(spawner.start())
        await asyncio.sleep(0.5)
        spawner.port = server.sockets[0].getsockname()[1]
        await asyncio.wait([start], timeout=4)
        server.close()
        done = start.done()
        start.cancel()
        return done

    assert run(start()) == started


def test_progress_tells_job_and_reason(make_spawner: Make) -> None:
    spawner = make_spawner(OURS)

    async def listen() -> list[str]:
        said = []

        async def collect() -> None:
            async for event in spawner.progress():
                said.append(event["message"])  # noqa: PERF401 # the listener never comes to an end

        listener = asyncio.ensure_future(collect())
        for job_id, status, port in [
            ("", "", 0),
            ("5", "PENDING N/A (Resources) n/a", 0),
            ("5", "PENDING N/A (Resources) n/a", 0),
            ("5", "RUNNING 2026-01-01T10:00:00 None n1", 0),
            ("5", "RUNNING 2026-01-01T10:00:00 None n1", 8888),
        ]:
            spawner.job_id, spawner.job_status, spawner.port = job_id, status, port
            await asyncio.sleep(0.6)
        listener.cancel()
        return said

    assert run(listen()) == [
        "Submitting the job",
        "Job 5 waits in the queue: Resources",
        "Job 5 runs",
        "Job 5 runs on n1, its server starts",
    ]
