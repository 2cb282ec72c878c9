"""What Slurm's commands say, as Slurm 24.11.5 printed it, and what is made of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from app_sessions.errors import SlurmAwayError, SlurmError
from app_sessions.models import SessionRow
from app_sessions.schema import Status
from app_sessions.sessions import _end_of
from app_sessions.slurm.commands import Commands, failure, read_jobs, read_partition
from app_sessions.slurm.jobs import SlurmJob, job_name
from app_sessions.slurm.slurmrestd import Slurmrestd
from app_sessions.slurm.slurmrestd import read_jobs as read_rest_jobs
from app_sessions.slurm.slurmrestd import read_partition as read_rest_partition

RECORDED = Path(__file__).parent / "recorded"
FAILED = "sbatch: error: Batch job submission failed: "
MARK = "9f7c"


def printed(*jobs: str) -> str:
    """What squeue prints of jobs, whose fields stand between bars."""
    return "".join(f"{MARK}." + job.replace("|", f"{MARK},", 6) + "\n" for job in jobs)


SQUEUE = printed(
    "4|CANCELLED|n1|alice|None|app_session_9604d85b-93d46e225500.1|vnc_port=6080",
    "5|RUNNING|n1|alice|None|app_session_9604d85b-db9614437fe3.1|vnc_port=6080",
)


def test_jobs_are_read_as_squeue_prints_them() -> None:
    ended, running = read_jobs(SQUEUE, MARK)

    assert (ended.state, ended.alive, ended.session) == ("CANCELLED", False, ("9604d85b-93d46e225500", 1))
    assert running == SlurmJob(5, "app_session_9604d85b-db9614437fe3.1", "alice", "RUNNING", "n1", "", "vnc_port=6080")
    assert (running.alive, running.waits, running.vnc_port, running.problem) == (True, False, 6080, "")


@pytest.mark.parametrize(
    ("comment", "port", "problem"),
    [
        ("", None, ""),
        ("vnc_port=6081", 6081, ""),
        ("vnc_port=80", None, ""),
        ("vnc_port=99999", None, ""),
        ("error=the image is not on node n1: deploy it", None, "the image is not on node n1: deploy it"),
        ("a user's own words", None, ""),
        ("error=with | and = in it", None, "with | and = in it"),
    ],
)
def test_comment_tells_port_or_problem(comment: str, port: int | None, problem: str) -> None:
    (job,) = read_jobs(printed(f"5|RUNNING|n1|alice|None|app_session_x-1.1|{comment}"), MARK)

    assert (job.vnc_port, job.problem) == (port, problem)


@pytest.mark.parametrize("end", ["\n", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_comment_that_looks_like_a_job_makes_none(end: str) -> None:
    """Anybody may write such a comment, about a session of somebody else's."""
    forged = f"a{end}5|FAILED|n2|alice|None|app_session_9604d85b-db9614437fe3.1|error=forged{end}b.7b,b"
    (_, session, job) = read_jobs(SQUEUE + printed(f"9|PENDING||mallory|None|mine|{forged}"), MARK)

    assert (session.job_id, session.state, session.problem) == (5, "RUNNING", "")
    assert (job.job_id, job.user, job.comment) == (9, "mallory", forged)


@pytest.mark.parametrize("name", ["hostname", "app_session_", "app_session_x", "app_session_x.", "my_app_session_x.1"])
def test_job_of_another_name_is_nobodys_session(name: str) -> None:
    assert SlurmJob(7, name, "alice", "RUNNING", "n1", "", "").session is None
    assert SlurmJob(7, job_name("x-1", 3), "alice", "RUNNING", "n1", "", "").session == ("x-1", 3)


@pytest.mark.parametrize(
    ("printed", "trouble"),
    [
        ("up|idle|2\n", ""),
        ("up|down*|1\nup|mixed|1\n", ""),
        ("up|drained|1\nup|down*|1\n", "no node of the partition viz can run it (1 down*, 1 drained)"),
        ("up|draining|2\n", "no node of the partition viz can run it (2 draining)"),
        ("down|idle|2\n", "the partition viz is down"),
        ("up|n/a|0\n", "the partition viz has no node"),
    ],
)
def test_partition_says_why_nothing_can_begin(printed: str, trouble: str) -> None:
    partition = read_partition("viz", printed)

    assert partition is not None
    assert partition.trouble.partition(":")[0] == trouble


def test_partition_that_is_not_there_is_none() -> None:
    assert read_partition("viz", "") is None


@pytest.mark.parametrize(
    ("said", "kind", "perhaps"),
    [
        (f"{FAILED}Invalid qos specification", SlurmError, None),
        (f"{FAILED}Unable to contact slurm controller (connect failure)", SlurmAwayError, False),
        (f"{FAILED}Socket timed out on send/recv operation", SlurmAwayError, True),
    ],
)
def test_failure_says_whether_a_job_may_be_there(said: str, kind: type[SlurmError], perhaps: bool | None) -> None:
    error = failure("sbatch", 1, said)

    assert type(error) is kind
    assert getattr(error, "perhaps", None) is perhaps
    assert "Batch job submission failed" in str(error)


def test_host_without_slurm_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app_sessions.slurm.commands._PATH", "/nowhere")

    with pytest.raises(SlurmError, match="there is no command squeue here: install Slurm's client"):
        asyncio.run(Commands().jobs())


@pytest.mark.parametrize(
    ("state", "was", "status", "said"),
    [
        ("RUNNING", "running", None, ""),
        ("COMPLETING", "running", None, ""),
        ("SUSPENDED", "running", None, ""),
        ("COMPLETED", "running", Status.STOPPED, "the application was closed"),
        ("COMPLETED", "pending", Status.ERROR, "job 7 ended as COMPLETED on n1 before its display answered"),
        ("CANCELLED", "pending", Status.STOPPED, "its job was cancelled"),
        ("TIMEOUT", "running", Status.STOPPED, "its job reached its time limit"),
        ("NODE_FAIL", "running", Status.ERROR, "job 7 ended as NODE_FAIL on n1"),
        ("OUT_OF_MEMORY", "running", Status.ERROR, "job 7 ended as OUT_OF_MEMORY on n1"),
        ("PENDING", "running", Status.STOPPED, "Slurm requeued its job"),
        ("PENDING", "pending", None, ""),
    ],
)
def test_end_of_a_job_is_the_end_of_its_session(state: str, was: str, status: Status | None, said: str) -> None:
    row = SessionRow(id="x-1", owner="alice", status=was, node="n1")
    end = _end_of(row, SlurmJob(7, job_name("x-1", 1), "alice", state, "n1", "", ""))

    assert (end[0] if end else None) == status
    assert end is None or end[1].startswith(said)


def test_job_that_slurm_has_forgotten_or_that_is_somebody_elses_is_over() -> None:
    row = SessionRow(id="x-1", owner="alice", status="running", node="n1")

    for job in (None, SlurmJob(7, job_name("x-1", 1), "bob", "RUNNING", "n1", "", "")):
        assert _end_of(row, job) == (Status.STOPPED, "Slurm does not know its job any more: it has ended")


@pytest.fixture(params=sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What squeue, sinfo and slurmrestd of a release said at one moment, as far as it is read."""
    found: dict[str, Any] = json.loads(request.param.read_text())
    return found


def test_slurmrestd_and_squeue_tell_the_same_jobs(recorded: dict[str, Any]) -> None:
    by_rest = {job.job_id: job for job in read_rest_jobs(recorded)}
    by_squeue = {job.job_id: job for job in read_jobs(printed(*recorded["squeue"].splitlines()), MARK)}

    assert by_rest == by_squeue
    assert {job.alive for job in by_rest.values()} == {True, False}


def test_slurmrestd_and_sinfo_tell_the_same_partition(recorded: dict[str, Any]) -> None:
    by_rest = read_rest_partition("viz", recorded, recorded)
    by_sinfo = read_partition("viz", recorded["sinfo"])

    assert by_rest == by_sinfo
    assert read_rest_partition("nowhere", recorded, recorded) is None


@pytest.mark.parametrize("body", [{"errors": [{"error": "Unable find requested URL"}]}, None], ids=["JSON", "a text"])
def test_slurmrestd_that_serves_another_version_is_asked_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    slurm = Slurmrestd("http://slurm:6820", key)
    served = "v0.0.40"

    def answer(_: str, url: str, **__: object) -> requests.Response:
        response = requests.Response()
        path = url.removeprefix("http://slurm:6820")
        known = {"/openapi/v3": {"paths": {f"/slurm/{served}/jobs": {}}}, f"/slurm/{served}/jobs": {"jobs": []}}
        response.status_code = 200 if path in known else 404
        response._content = json.dumps(known.get(path, body)).encode()
        return response

    monkeypatch.setattr(slurm._session, "request", answer)
    assert asyncio.run(slurm.jobs()) == []
    served = "v0.0.42"

    with pytest.raises(SlurmError):
        asyncio.run(slurm.jobs())

    assert asyncio.run(slurm.jobs()) == []


def test_job_that_is_being_ended_is_not_over() -> None:
    (found,) = read_rest_jobs({"jobs": [{"job_id": 7, "job_state": ["CANCELLED", "COMPLETING"]}]})

    assert found.alive
