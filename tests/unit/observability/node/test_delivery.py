"""Sending events to a service that is away, slow, or at fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_observability.node.delivery import Delivery, Outcome, Service
from slurm_observability.node.events import finished, started
from slurm_observability.node.spool import Ready, Spool
from slurm_observability.schema import MOST_AT_ONCE

from slurm_testbed.readiness import wait_until
from tests.unit.observability.node.conftest import FakeService, Reply, Request, leave

FAST = (0.01, 0.05)


def put(spool: Spool, *jobs: int, end: bool = False) -> None:
    """Events in the spool: a start of each job, and perhaps an end."""
    for at, job in enumerate(jobs, 1):
        leave(spool, "prolog", written_ns=at * 10**9, SLURM_JOB_ID=str(job))
        if end:
            leave(spool, "epilog", written_ns=(at + 100) * 10**9, SLURM_JOB_ID=str(job), SLURM_JOB_EXIT_CODE2="0:0")
    for record in list(spool.records()):
        spool.put(record, "n1", started(record) if record.is_start else finished(record))


def delivery(spool: Spool, service: FakeService | str, **options: float) -> Delivery:
    url = service if isinstance(service, str) else service.url
    return Delivery(spool, Service(url, timeout=options.get("timeout", 5)), pauses=FAST)


def failing(service: FakeService, times: int, reply: Reply | None) -> None:
    """Answer so at first, and then as one should."""

    def answer(request: Request) -> Reply | None:
        return reply if len(service.requests) <= times else service.take(request)

    service.answer = answer


def test_events_arrive_in_order_and_leave_the_spool(spool: Spool, service: FakeService) -> None:
    put(spool, 1, 2, end=True)

    delivery(spool, service).deliver()

    assert service.events() == [("job-started", 1), ("job-started", 2), ("job-finished", 1), ("job-finished", 2)]
    assert [request.path for request in service.requests] == ["/v1/events"], "what waits together is sent together"
    assert list(spool.waiting()) == []


def test_many_events_are_sent_in_several_requests(spool: Spool, service: FakeService) -> None:
    put(spool, *range(1, MOST_AT_ONCE + 31))

    delivery(spool, service).deliver()

    assert [len(request.events()) for request in service.requests] == [MOST_AT_ONCE, 30]
    assert [job for _, job in service.events()] == list(range(1, MOST_AT_ONCE + 31))


def test_nothing_is_lost_while_the_service_is_away(spool: Spool) -> None:
    put(spool, 1, 2)

    sender = delivery(spool, "http://127.0.0.1:9")

    assert [sender.attempt(), sender.attempt()] == [True, True]
    assert sender.trouble
    assert len(list(spool.waiting())) == 2


@pytest.mark.parametrize(
    "reply",
    [
        (500, {}, b"oops"),
        (502, {}, b"<html>"),
        (503, {}, b""),
        (429, {}, b"slower"),
        (401, {}, b"who?"),
        (404, {}, b"not here"),
        (301, {"Location": "http://127.0.0.1:9/"}, b""),
        (200, {}, b"<html>Welcome to our hotel</html>"),
        (200, {}, b"{}"),
        None,
    ],
    ids=lambda reply: "no answer" if reply is None else f"{reply[0]} {reply[2].decode()[:7]}",
)
def test_event_is_delivered_after_a_failure(spool: Spool, service: FakeService, reply: Reply | None) -> None:
    put(spool, 1, end=True)
    failing(service, 3, reply)

    delivery(spool, service).deliver()

    assert service.events() == [("job-started", 1), ("job-finished", 1)]
    assert (list(spool.waiting()), spool.refusals()) == ([], 0)


def test_token_does_not_follow_a_redirection(spool: Spool, service: FakeService) -> None:
    put(spool, 1)
    failing(service, 1, (307, {"Location": f"{service.url}/elsewhere"}, b""))

    delivery(spool, service).deliver()

    assert {request.path for request in service.requests} == {"/v1/events/job-started"}


@pytest.mark.row("O-02.6")
def test_slow_service_is_given_up_after_the_timeout(spool: Spool, service: FakeService) -> None:
    put(spool, 1)
    go_on = threading.Event()

    def answer(request: Request) -> Reply:
        go_on.wait(30)
        return service.take(request)

    service.answer = answer
    began = time.monotonic()
    left = delivery(spool, service, timeout=0.2).attempt()
    passed = time.monotonic() - began
    go_on.set()

    assert left
    assert 0.2 <= passed < 20
    assert len(list(spool.waiting())) == 1


def test_answer_that_was_lost_makes_no_second_event(spool: Spool, service: FakeService) -> None:
    put(spool, 1)

    def answer(request: Request) -> Reply | None:
        reply = service.take(request)
        return None if len(service.requests) == 1 else reply

    service.answer = answer
    delivery(spool, service).deliver()

    assert len(service.requests) == 2
    assert service.requests[0] == service.requests[1]
    assert service.events() == [("job-started", 1)]


def test_ca_that_is_missing_for_a_moment_ends_no_delivery(
    spool: Spool, service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool, 1)
    (tmp_path / "token").write_bytes(b"\xff")
    away = Service(service.url.replace("http:", "https:"), ca_file=tmp_path / "none.crt")
    assert away.post("/v1/events", {}).outcome is Outcome.AWAY
    unreadable = Service(service.url, token_file=tmp_path / "token").post("/v1/events", {})
    assert (unreadable.outcome, "the token cannot be read" in unreadable.text) == (Outcome.AWAY, True)


def test_delivery_goes_on_after_what_nobody_foresaw(
    spool: Spool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool, 1)
    waiting = spool.waiting
    troubles = iter([OSError("No space left on device")])

    def full() -> Iterator[Ready]:
        for trouble in troubles:
            raise trouble
        return waiting()

    monkeypatch.setattr(spool, "waiting", full)
    delivery(spool, service).start()

    wait_until(service.events, "the event", deadline=10)
    assert service.events() == [("job-started", 1)]


def test_service_says_when_to_come_back(spool: Spool, service: FakeService) -> None:
    put(spool, 1)
    failing(service, 1, (429, {"Retry-After": "1"}, b""))
    began = time.monotonic()

    delivery(spool, service).deliver()

    assert time.monotonic() - began >= 1
    assert len(service.requests) == 2


def test_one_events_fault_does_not_hold_up_other_jobs(spool: Spool, service: FakeService) -> None:
    put(spool, 1, 2, end=True)
    service.answer = lambda request: (500, {}, b"") if request.is_about(1) else service.take(request)

    left = delivery(spool, service).attempt()

    assert left
    assert service.events() == [("job-started", 2), ("job-finished", 2)]
    # The end of job 1 was not sent before its start.
    assert [r.path for r in service.requests if r.is_about(1)] == ["/v1/events", "/v1/events/job-started"]


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_event_that_can_never_pass_is_put_aside_with_the_answer(
    spool: Spool, service: FakeService, status: int
) -> None:
    put(spool, 1, 2)
    service.answer = lambda r: (status, {}, b"job_id: no") if r.is_about(1) else service.take(r)

    delivery(spool, service).deliver()

    assert service.events() == [("job-started", 2)]
    assert spool.refusals() == 1
    [answer] = spool.refused.glob("*.answer")
    assert f"{status}" in answer.read_text()
    assert "job_id: no" in answer.read_text()
    assert answer.with_suffix("").exists()


def test_token_is_read_anew_each_time(spool: Spool, service: FakeService, tmp_path: Path) -> None:
    token = tmp_path / "token"
    sender = Service(service.url, token_file=token)
    assert sender.post("/v1/samples", {}).outcome is Outcome.AWAY

    for value in ("one", "two"):
        token.write_text(f"{value}\n")
        sender.post("/v1/samples", {})

    assert [request.token for request in service.requests] == ["Bearer one", "Bearer two"]


def test_event_that_comes_while_others_are_sent_is_sent_too(spool: Spool, service: FakeService) -> None:
    sender = delivery(spool, service)
    sender.start()
    for job in range(1, 21):
        put(spool, job)
        sender.wake()

    wait_until(lambda: len(service.stored) == 20, "20 events", deadline=30, state=lambda: f"{len(service.stored)}")
    assert sorted(job for _, job in service.events()) == list(range(1, 21))
