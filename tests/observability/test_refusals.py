"""What the service refuses, on a real stack: its documented error, and the jobs of the others unharmed."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from fixtures.observability import await_state, events, kinds, known, secret_of
from slurm_testbed import SlurmCluster

#: A stack of eleven containers: `invoke test --deep -- tests/observability`, and the nightly matrix.
pytestmark = pytest.mark.deep

#: No job of Slurm's has this number here, nor one above it.
STRANGER = 4_000_000_000
BODY_BYTES = 1024 * 1024
REPORTS = ("v1/events/job-started", "v1/events/job-finished", "v1/samples")
ONE_RUN = [(0, "finished"), (0, "started")]
Post = Callable[..., tuple[int, Any]]


def at(seconds: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def started(**changes: Any) -> dict[str, Any]:
    body = {"job_id": STRANGER, "user": "mallory", "node_list": ["n1"], "timestamp": at(), "source": "prolog"}
    return {**body, **changes}


def finished(**changes: Any) -> dict[str, Any]:
    body = {"job_id": STRANGER, "node_list": ["n1"], "timestamp": at(), "source": "epilog", "final_state": "failed"}
    return {**body, **changes}


@pytest.fixture
def post(observed: SlurmCluster) -> Iterator[Post]:
    """Sends as an agent does, and says the status and the code of the refusal, or what was answered."""
    secret = observed.observability.token("agent")
    with requests.Session() as session:
        session.trust_env = False

        def send(path: str, body: Any, key: str = "refusals", **headers: str) -> tuple[int, Any]:
            answer = session.post(
                f"{observed.observability.url}/{path}",
                data=body if isinstance(body, bytes) else json.dumps(body),
                headers={
                    "Authorization": f"Bearer {secret}",
                    "Idempotency-Key": key,
                    "Content-Type": "application/json",
                    **headers,
                },
                timeout=60,
            )
            said = answer.json()
            return answer.status_code, said["error"]["code"] if "error" in said else said

        yield send


@pytest.fixture(autouse=True)
def _rest_is_unharmed(observed: SlurmCluster) -> Iterator[None]:
    """After each test: the stranger is not there, and a real job is reported from start to end."""
    yield
    assert known(observed, STRANGER) == {}
    job = observed.sbatch(wrap="exit 3", nodelist="n1")
    job.wait()
    assert await_state(observed, job, "failed")["exit_code"] == 3
    assert kinds(observed, job.id) == ONE_RUN
    assert observed.observability.api("GET", "v1/health").json()["database"]["ok"]


@pytest.mark.row("O-14.1", "O-11.7")
def test_who_has_no_token_or_one_of_another_role_changes_nothing(observed: SlurmCluster, post: Post) -> None:
    reader = observed.observability.token("reader")
    refused = {
        "": (401, "token_missing"),
        "Bearer ": (401, "token_unknown"),
        f"Bearer {reader[:-1]}": (401, "token_unknown"),
        f"Basic {reader}": (401, "token_unknown"),
        f"Bearer {reader}": (403, "role_insufficient"),
    }
    for path in REPORTS:
        for header, answer in refused.items():
            assert post(path, started(), Authorization=header) == answer, (path, header)
    agent = observed.observability.token("agent")
    for path in ("v1/jobs", "v1/nodes", "v1/audit", "metrics"):
        url = f"{observed.observability.url}/{path}"
        got = requests.get(url, headers={"Authorization": f"Bearer {agent}"}, timeout=30)
        assert (got.status_code, got.json()["error"]["code"]) == (403, "role_insufficient"), path


@pytest.mark.row("O-14.1", "O-11.7")
def test_one_who_guesses_tokens_waits_and_others_do_not(observed: SlurmCluster) -> None:
    # From a host that asks nothing else: whoever has its address waits, with a good token, too.
    program = """
import urllib.error, urllib.request
for number in range(100):
    request = urllib.request.Request("http://observability:8080/v1/jobs")
    request.add_header("Authorization", f"Bearer guess-{number}")
    try:
        urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    done = observed.substrate.exec("observability", ["python3", "-c", program])
    codes = done.stdout.splitlines()
    assert codes[0] == "401", done.stderr
    assert "429" in codes
    assert observed.observability.api("GET", "v1/jobs").ok


@pytest.mark.row("O-11.7")
def test_event_that_does_not_fit_is_refused(post: Post) -> None:
    malformed = [b"", b"{", b"\xff\xfe", b"[" * 100_000]
    invalid: list[Any] = [
        [],
        None,
        started(job_id="seven"),
        started(job_id=0),
        started(job_id=2**32),
        started(user="a\nhpc_job_runtime_seconds 1"),
        started(name="\0"),
        started(node_list=['n1"} 1\nhpc_node_job_count{node="x']),
        started(node_list=["n1"] * 65537),
        started(cpu_allocation=2**63),
        started(timestamp="2026-01-01T00:00:00"),
        started(source="epilog"),
        started(colour="red"),
        started(user="\ud800"),
    ]
    for raw in malformed:
        assert post("v1/events/job-started", raw) in {(400, "malformed"), (422, "invalid_request")}, raw[:20]
    for body in invalid:
        assert post("v1/events/job-started", body) == (422, "invalid_request"), str(body)[:200]
    assert post("v1/events/job-finished", finished(final_state="running")) == (422, "invalid_request")
    assert post("v1/samples", {"node": "n1", "timestamp": at(), "job_count": -1}) == (422, "invalid_request")
    for key in ("", "a b", "k" * 201):
        assert post("v1/events/job-started", started(), key=key) == (422, "invalid_request"), key


@pytest.mark.row("O-11.7")
def test_body_that_is_too_large_or_never_comes_stops_nobody(observed: SlurmCluster, post: Post) -> None:
    huge = json.dumps(started(name="x" * BODY_BYTES)).encode()
    assert post("v1/events/job-started", huge) == (413, "body_too_large")

    address = observed.substrate.endpoint("observability", 8080)
    head = (
        f"POST /v1/events/job-started HTTP/1.1\r\nHost: x\r\nIdempotency-Key: endless\r\n"
        f"Authorization: Bearer {observed.observability.token('agent')}\r\n"
    )
    with socket.create_connection(address, 30) as endless:
        endless.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(BODY_BYTES // 0x10000 + 1):
            endless.sendall(piece)
        # It is told so while it still sends.
        assert endless.recv(4096).startswith(b"HTTP/1.1 413 ")
    silent = [socket.create_connection(address, 30) for _ in range(100)]
    try:
        for connection in silent:
            connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode())
        assert observed.observability.api("GET", "v1/jobs", timeout=30).ok
        assert post("v1/events/job-started", b"{")[0] in {400, 422}
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.row("O-06.4", "O-11.7")
def test_event_that_is_sent_again_is_the_same_event(observed: SlurmCluster, post: Post) -> None:
    job = observed.sbatch(wrap="exit 1", nodelist="n1")
    job.wait()
    before = await_state(observed, job, "failed")
    real = events(observed, job.id)

    # As an agent would that had no answer, from several at once, the last event first.
    sent = [(f"v1/events/job-{event['kind']}", event["body"], event["key"]) for event in reversed(real * 20)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda one: post(*one), sent))
    assert {status for status, _ in answers} == {200}
    assert {said["run"] for _, said in answers} == {0}
    assert events(observed, job.id) == real
    after = known(observed, job.id)
    # Of what it used, the agent may have read the last meanwhile.
    for name in ("state", "exit_code", "user", "started_at", "finished_at", "node_list", "runs"):
        assert after[name] == before[name], name
    for path, body, key in sent[:2]:
        assert post(path, {**body, "job_id": STRANGER}, key=key) == (409, "idempotency_key_reused")


@pytest.mark.row("O-06.4")
def test_events_in_any_order_are_one_run(observed: SlurmCluster, post: Post) -> None:
    of_a_run = [
        ("v1/events/job-started", started(source="prologslurmctld", timestamp=at(-10.2))),
        ("v1/events/job-started", started(source="prolog", timestamp=at(-10))),
        ("v1/events/job-finished", finished(source="epilog", timestamp=at(-5))),
        ("v1/events/job-finished", finished(source="epilogslurmctld", timestamp=at(-4.8))),
    ]
    for number, order in enumerate(itertools.permutations(of_a_run), STRANGER + 1):
        for path, body in order:
            status, said = post(path, {**body, "job_id": number}, key=f"{number}-{body['source']}")
            assert (status, said["run"]) == (201, 0), order
        found = known(observed, number)
        assert (found["state"], found["user"], found["node_list"]) == ("failed", "mallory", ["n1"]), order
        assert kinds(observed, number) == ONE_RUN, order
    # A sample that is older than the node's last changes nothing either.
    cluster = observed.observability.api("GET", "v1/nodes").json()["nodes"][0]["cluster"]
    status, sample = post("v1/samples", {"node": "n1", "cluster": cluster, "timestamp": at(-60), "job_count": 99})
    assert (status, sample["recorded"]) == (200, False)


@pytest.mark.row("O-11.9", "O-14.3")
def test_audit_has_each_change_with_its_source_and_no_refused_one(observed: SlurmCluster, post: Post) -> None:
    job = observed.sbatch(wrap="exit 5", nodelist="n1")
    job.wait()
    await_state(observed, job, "failed")
    post("v1/events/job-started", started(job_id=job.id, colour="red"))
    post("v1/events/job-started", started(job_id=job.id), Authorization="Bearer wrong")

    with secret_of(observed, "admin", "auditor") as secret:
        headers = {"Authorization": f"Bearer {secret}"}
        url = f"{observed.observability.url}/v1/audit"
        changes = requests.get(url, params={"job_id": job.id}, headers=headers, timeout=30).json()["changes"]
        assert requests.delete(url, headers=headers, timeout=30).status_code == 405, "nobody takes a row back"
        after = requests.get(url, params={"job_id": job.id}, headers=headers, timeout=30).json()["changes"]
    assert after == changes
    hosts = {
        name: observed.substrate.exec(name, ["hostname", "--ip-address"]).stdout.split() for name in ("n1", "slurmctld")
    }
    for change in changes:
        assert change["at"], change
        assert change["who"] in {"agent", "service"}, change
        if change["who"] == "agent":
            assert change["source"] in {address for every in hosts.values() for address in every}, (change, hosts)
    # Newest first; whoever told of the job first, Slurm or a script, made its row.
    assert (changes[-1]["before"], changes[-1]["after"]["user"]) == (None, "alice")
    assert {"job-started", "job-finished"} <= {change["action"] for change in changes}
    ends = [change for change in changes if (change["after"] or {}).get("state") == "failed"]
    assert len(ends) == 1
    assert ends[0]["before"]["state"] in {"running", "completing"}
    assert all((change["after"] or {}).get("user", "alice") == "alice" for change in changes)
