"""Reconciliation, with what slurmrestd of three releases said of the same six jobs.

slurmrestd/*.json are its answers, cut to the fields that are read. Job 1 was `true`, 2 `exit 42`; 3 ran on both nodes,
was suspended, resumed, requeued, and cancelled while it waited; 4 was cancelled while it ran, 5 before it did; 6
killed itself.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from slurm_observability.schema import JobState
from slurm_observability.service.models import Node, Run
from slurm_observability.service.nodes import NO_FACTS
from slurm_observability.service.reconcile import Reconciler, match
from slurm_observability.service.scheduler import SchedulerError, Slurmrestd, read_jobs, read_nodes, read_records
from sqlalchemy.orm import Session

from tests.unit.observability.service.conftest import Api

Json = dict[str, Any]
ANSWERS = Path(__file__).parent / "slurmrestd"
RELEASES = sorted(path.stem for path in ANSWERS.glob("*.json"))
KEY = b"k" * 32


class Recorded:
    """A server that answers as slurmrestd of a release did.

    Attributes:
        release: whose answers they are.
        answers: what it said, by moment.
        moment: which of slurmctld's answers it gives.
        records: whether slurmdbd has any.
        status: of every answer.
        said: its answer to everything, if there is one.
        asked: the paths.
    """

    def __init__(self, release: str) -> None:
        self.release = release
        self.answers: Json = json.loads((ANSWERS / f"{release}.json").read_text())
        self.moment, self.records, self.status = "running", True, 200
        self.said: bytes | None = None
        self.asked: list[str] = []
        self.tokens: list[str] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked.append(self.path)
                served.tokens.append(self.headers["X-SLURM-USER-TOKEN"])
                body = served.said if served.said is not None else json.dumps(served.answer(self.path)).encode()
                self.send_response(served.status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str) -> Json:
        """What it says to a GET."""
        version = self.answers["version"]
        path = path.partition("?")[0]
        records = self.answers["records"] if self.records else []
        if self.status != 200:
            return {"errors": [{"error": "Zero Bytes were transmitted or received"}]}
        if path == "/openapi/v3":
            return {"paths": {f"/slurm/{name}/jobs": {} for name in ("v0.0.4", version)}}
        if path == f"/slurmdb/{version}/jobs":
            return self.found(records)
        if path.startswith(f"/slurmdb/{version}/job/"):
            return self.found([one for one in records if str(one["job_id"]) == path.rsplit("/", 1)[1]])
        if path == f"/slurm/{version}/nodes":
            return {"nodes": self.answers["nodes"]}
        assert path == f"/slurm/{version}/jobs", path
        return {"jobs": self.answers["jobs"][self.moment]}

    def found(self, records: list[Json]) -> Json:
        """slurmdbd's records; that there are none is an error to 22.05, in its own words."""
        nothing = {"description": "Nothing found", "error_number": 9003, "error": "Nothing found with query"}
        return {"jobs": records, "errors": [nothing] if not records and self.release == "22.05" else []}


@pytest.fixture(params=RELEASES)
def slurm(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """slurmrestd of each release."""
    made = Recorded(request.param)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def look(api: Api, slurm: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reconciler:
    """A look at Slurm, in the days of the recording."""
    key = tmp_path / "jwt.key"
    key.write_bytes(KEY)
    restd = Slurmrestd(slurm.url, "slurm", key_file=key)
    begin = min(one["time"]["start"] for one in slurm.answers["records"])
    monkeypatch.setattr("slurm_observability.service.reconcile.now", lambda: datetime.fromtimestamp(begin + 60, UTC))
    made = Reconciler(api.service.database, api.service.board, restd, seconds=5, retention=timedelta(days=36500))
    api.service.scheduler = made.status
    return made


def states(api: Api) -> dict[int, str]:
    """Each job's state."""
    return {job["job_id"]: job["state"] for job in api.get("/v1/jobs")["jobs"]}


def start_of(slurm: Recorded, job_id: int) -> str:
    """When a job began, as its prolog would say: somewhat later than slurmctld."""
    [first, *_] = [one for one in slurm.answers["records"] if one["job_id"] == job_id]
    return datetime.fromtimestamp(first["time"]["start"] + 0.3, UTC).isoformat()


ENDED = {1: "completed", 2: "failed", 3: "cancelled", 4: "cancelled", 5: "cancelled", 6: "failed"}


@pytest.mark.row("O-10.1")
def test_what_waits_and_runs_is_shown(api: Api, slurm: Recorded, look: Reconciler) -> None:
    look.look()

    shown = states(api)
    assert (shown[3], shown[4]) == ("running", "pending" if 4 in _waiting(slurm) else "running")
    job = api.get("/v1/jobs/3")
    assert (job["user"], job["node_list"], job["cpu_allocation"], job["memory_allocation_mb"]) == (
        "alice",
        ["n1", "n2"],
        2,
        200,
    )
    for job_id in _waiting(slurm):
        waiting = api.get(f"/v1/jobs/{job_id}")
        assert (waiting["state"], waiting["started_at"], waiting["user"]) == ("pending", None, "alice")
    assert api.get("/v1/jobs/3/events")["events"][0]["source"] == "reconciliation"


def _waiting(slurm: Recorded) -> set[int]:
    return {job.job_id for job in read_jobs({"jobs": slurm.answers["jobs"][slurm.moment]}) if job.state == "pending"}


@pytest.mark.parametrize("arrives", ["before the look", "as the look writes"])
def test_job_that_began_after_slurmctld_was_asked_does_not_wait_again(
    api: Api, slurm: Recorded, look: Reconciler, monkeypatch: pytest.MonkeyPatch, arrives: str
) -> None:
    monkeypatch.setattr("slurm_observability.service.reconcile.now", lambda: datetime.fromisoformat(start_of(slurm, 3)))
    waiting, write = _waiting(slurm), api.service.database.write

    def prolog(job_id: int) -> None:
        waiting.remove(job_id)
        api.event("started", job_id=job_id, user="alice", source="prolog", timestamp=start_of(slurm, 3))

    def late(job_id: int | None = None) -> AbstractContextManager[Session]:
        if job_id in waiting:
            prolog(job_id)
        return write(job_id)

    if arrives == "before the look":
        for job_id in set(waiting):
            prolog(job_id)
    else:
        monkeypatch.setattr(api.service.database, "write", late)
    look.look()

    assert not waiting, "the look did not write of them"
    for job_id in _waiting(slurm):
        runs = [(run["run"], run["state"]) for run in api.get(f"/v1/jobs/{job_id}")["runs"]]
        assert runs == [(0, "running")]


@pytest.mark.row("O-10.2", "O-10.4", "O-10.5", "O-10.6")
def test_each_job_ends_in_the_state_that_slurmdbd_has(api: Api, slurm: Recorded, look: Reconciler) -> None:
    for slurm.moment in ("running", "suspended", "requeued", "ended"):
        look.look()

    assert states(api) == ENDED
    assert {job["settled"] for job in api.get("/v1/jobs")["jobs"]} == {True}
    assert [(run["run"], run["state"]) for run in api.get("/v1/jobs/3")["runs"]] == [(0, "requeued"), (1, "cancelled")]
    ends = {job_id: (job["exit_code"], job["signal"]) for job_id in (1, 2, 6) if (job := api.get(f"/v1/jobs/{job_id}"))}
    assert ends == {1: (0, 0), 2: (42, 0), 6: (0, 9)}
    for job_id in ENDED:
        told = [(event["run"], event["kind"]) for event in api.get(f"/v1/jobs/{job_id}/events")["events"]]
        assert len(told) == len(set(told))
    assert api.get("/v1/health")["scheduler"]["unsettled"] == 0
    assert not api.service.board.runs()


@pytest.mark.row("O-10.2")
def test_job_that_slurmdbd_does_not_know_holds_up_no_other(api: Api, slurm: Recorded, look: Reconciler) -> None:
    at = start_of(slurm, 1)
    api.event("started", job_id=4_000_000_001, user="alice", source="prolog", timestamp=at)
    api.event("finished", job_id=4_000_000_001, final_state="completed", source="epilog", timestamp=at)
    for slurm.moment in ("running", "suspended", "requeued", "ended"):
        look.look()

    settled = {job["job_id"]: job["settled"] for job in api.get("/v1/jobs")["jobs"]}
    assert settled == {**dict.fromkeys(ENDED, True), 4_000_000_001: False}
    assert api.get("/v1/health")["scheduler"]["ok"] is True


@pytest.mark.row("O-10.6")
def test_what_an_epilog_could_not_know_is_corrected_and_audited(api: Api, slurm: Recorded, look: Reconciler) -> None:
    at = start_of(slurm, 4)
    api.event("started", job_id=4, user="alice", node_list=["n1", "n2"], source="prolog", timestamp=at)
    end = {"final_state": "failed", "exit_code": 0, "signal": 15, "source": "epilog", "timestamp": at}
    api.event("finished", job_id=4, **end)
    assert (api.get("/v1/jobs/4")["state"], api.get("/v1/jobs/4")["settled"]) == ("failed", False)

    slurm.moment = "ended"
    look.look()

    assert (api.get("/v1/jobs/4")["state"], api.get("/v1/jobs/4")["settled"]) == ("cancelled", True)
    told = [(event["kind"], event["source"]) for event in api.get("/v1/jobs/4/events")["events"]]
    assert told == [("started", "prolog"), ("finished", "epilog")], "no second event"
    changes = api.get("/v1/audit", "admin", job_id=4)["changes"]
    assert (changes[0]["who"], changes[0]["source"]) == ("service", "slurmdbd")
    corrected = [one for one in changes if "state" in (one["after"] or {}) and one["who"] == "service"]
    assert (corrected[-1]["before"]["state"], corrected[-1]["after"]["state"]) == ("failed", "cancelled")


@pytest.mark.row("O-05.4")
def test_requeued_run_reported_by_scripts_is_settled_by_its_own_record(
    api: Api, slurm: Recorded, look: Reconciler
) -> None:
    at = start_of(slurm, 3)
    api.event("started", job_id=3, user="alice", node_list=["n1", "n2"], source="prolog", timestamp=at)
    api.event("finished", job_id=3, final_state="failed", signal=15, exit_code=0, source="epilog", timestamp=at)
    for slurm.moment in ("requeued", "ended"):
        look.look()

    runs = [(run["run"], run["state"], run["settled"]) for run in api.get("/v1/jobs/3")["runs"]]
    assert runs == [(0, "requeued", True), (1, "cancelled", True)]


@pytest.mark.row("O-05.4")
def test_record_settles_the_run_that_began_when_it_did(slurm: Recorded) -> None:
    """Where an administrator starts a requeued job at once, and slurmdbd has no record yet of the second run."""
    first = next(one for one in read_records({"jobs": slurm.answers["records"]}) if one.job_id == 3 and one.nodes)
    assert first.started_at is not None
    assert first.finished_at is not None
    again = first.finished_at + timedelta(seconds=3)
    runs = [Run(run=0, started_at=first.started_at), Run(run=1, started_at=again)]

    assert match(runs[1], [first], [runs[0]]) is None
    assert match(runs[0], [first], [runs[1]]) is first

    second = dataclasses.replace(first, started_at=again, finished_at=again + timedelta(seconds=1), restarts=None)
    assert [match(run, [first, second], [other]) for run, other in (runs, reversed(runs))] == [first, second]


@pytest.mark.row("O-05.4")
@pytest.mark.parametrize("told", [(0.54, 1.54), (0.99, 2.6), (0.01, 1.2)])
def test_records_of_whole_seconds_are_each_of_its_own_run(slurm: Recorded, told: tuple[float, float]) -> None:
    """A second run that began in the next second: the node tells of a start after slurmctld."""
    record = next(one for one in read_records({"jobs": slurm.answers["records"]}) if one.job_id == 3 and one.nodes)
    assert record.started_at is not None
    begun = [record.started_at, record.started_at + timedelta(seconds=1)]
    records = [dataclasses.replace(record, started_at=at, finished_at=at, restarts=None) for at in begun]
    runs = [Run(run=number, started_at=begun[0] + timedelta(seconds=at)) for number, at in enumerate(told)]

    assert [match(run, records, [other]) for run, other in (runs, reversed(runs))] == records


@pytest.mark.row("O-05.4", "O-10.9")
def test_run_whose_end_nobody_told_ends_while_the_next_one_waits(api: Api, slurm: Recorded, look: Reconciler) -> None:
    api.event("started", job_id=3, user="alice", node_list=["n1"], source="prolog", timestamp=start_of(slurm, 3))
    slurm.answers["records"] = [one for one in slurm.answers["records"] if one["nodes"] != "None assigned"]
    slurm.moment = "requeued"
    look.look()

    runs = [(run["run"], run["state"], run["settled"]) for run in api.get("/v1/jobs/3")["runs"]]
    assert runs == [(0, "requeued", True), (1, "pending", False)]
    assert [run.job_id for run in api.service.board.runs()].count(3) == 0


def test_end_is_left_to_the_epilog_for_a_while(
    api: Api, slurm: Recorded, look: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.event("started", job_id=6, user="alice", node_list=["n1"], source="prolog", timestamp=start_of(slurm, 6))
    end = next(one["time"]["end"] for one in slurm.answers["records"] if one["job_id"] == 6)
    monkeypatch.setattr("slurm_observability.service.reconcile.now", lambda: datetime.fromtimestamp(end + 1, UTC))
    slurm.moment = "ended"
    look.look()
    assert (api.get("/v1/jobs/6")["state"], api.get("/v1/jobs/5")["state"]) == ("running", "cancelled")

    monkeypatch.setattr("slurm_observability.service.reconcile.now", lambda: datetime.fromtimestamp(end + 60, UTC))
    look.look()
    assert api.get("/v1/jobs/6")["state"] == "failed"


def test_slurmctlds_word_stands_until_slurmdbd_has_spoken(api: Api, slurm: Recorded, look: Reconciler) -> None:
    slurm.records, slurm.moment = False, "ended"
    look.look()

    assert states(api) == ENDED
    assert {job["settled"] for job in api.get("/v1/jobs")["jobs"]} == {False}
    assert api.get("/v1/health")["scheduler"]["unsettled"] == len(ENDED)


def test_second_look_changes_nothing(api: Api, slurm: Recorded, look: Reconciler) -> None:
    slurm.moment = "ended"
    look.look()
    changes = api.get("/v1/audit", "admin")["total"]

    look.look()

    assert api.get("/v1/audit", "admin")["total"] == changes


@pytest.mark.row("O-10.1")
def test_suspended_is_shown_and_its_time_does_not_count(api: Api, slurm: Recorded, look: Reconciler) -> None:
    look.look()
    slurm.moment = "suspended"
    look.look()
    assert api.get("/v1/jobs/3")["state"] == "suspended"

    slurm.moment = "running"
    look.look()

    assert api.get("/v1/jobs/3")["state"] == "running"


def test_late_prolog_completes_what_was_reconciled(api: Api, slurm: Recorded, look: Reconciler) -> None:
    slurm.moment = "ended"
    look.look()
    before = len(api.get("/v1/jobs/2/events")["events"])

    answer = api.event(
        "started",
        job_id=2,
        user="alice",
        node_list=["n1"],
        source="prolog",
        timestamp=start_of(slurm, 2),
        cgroup_path="x",
    )

    assert (answer["run"], answer["recorded"], answer["state"]) == (0, False, "failed")
    assert api.get("/v1/jobs/2")["cgroup_path"] == "x"
    assert len(api.get("/v1/jobs/2/events")["events"]) == before == 2


def test_nodes_are_those_of_slurm(api: Api, slurm: Recorded, look: Reconciler) -> None:
    look.look()

    nodes = api.get("/v1/nodes")["nodes"]
    assert [(node["node"], node["state"], node["cpus"], node["silent"]) for node in nodes] == [
        ("n1", "mixed", 8, None),
        ("n2", "mixed", 8, None),
    ]
    assert nodes[0]["memory_mb"] == 24105


def told(api: Api) -> list[tuple[str, str, str, bool]]:
    """Cluster, name and state of each node, and whether an agent has spoken of it."""
    nodes = api.get("/v1/nodes")["nodes"]
    return [(node["cluster"], node["node"], node["state"], node["seen_at"] is not None) for node in nodes]


@pytest.mark.parametrize("first", ["agent", "Slurm"])
def test_node_whose_agent_does_not_know_its_cluster_is_that_of_slurm(
    api: Api, slurm: Recorded, look: Reconciler, first: str
) -> None:
    cluster = slurm.answers["jobs"]["running"][0]["cluster"]
    if first == "agent":
        api.sample(node="n1", seconds=1)
    look.look()
    api.sample(node="n1", seconds=2)
    look.look()

    assert told(api) == [(cluster, "n1", "mixed", True), (cluster, "n2", "mixed", False)]

    # slurm.conf has come.
    api.sample(node="n1", seconds=3, cluster=cluster)
    assert told(api) == [(cluster, "n1", "mixed", True), (cluster, "n2", "mixed", False)]
    assert list(api.series("hpc_node_job_count")) == ['node="n1"']


def test_node_of_which_two_told_at_once_is_one(api: Api, slurm: Recorded, look: Reconciler) -> None:
    cluster = slurm.answers["jobs"]["running"][0]["cluster"]
    look.look()
    # What Slurm's answer and an agent's sample left that each found no row: one without a cluster.
    with api.service.database.write() as session:
        session.add(Node(cluster="", node="n1", **NO_FACTS))

    api.sample(node="n1", seconds=2, cluster=cluster)

    assert told(api) == [(cluster, "n1", "mixed", True), (cluster, "n2", "mixed", False)]


def test_host_that_is_no_node_is_not_among_them(api: Api, slurm: Recorded, look: Reconciler) -> None:
    cluster = slurm.answers["jobs"]["running"][0]["cluster"]
    api.sample(node="slurmctld", cluster=cluster)
    assert [node[1] for node in told(api)] == ["slurmctld"]

    look.look()

    assert [node[1] for node in told(api)] == ["n1", "n2"]


def test_node_that_slurm_has_no_more_leaves(api: Api, slurm: Recorded, look: Reconciler) -> None:
    look.look()
    slurm.answers["nodes"] = slurm.answers["nodes"][:1]

    look.look()

    assert [node[1] for node in told(api)] == ["n1"]


def test_slurmrestd_that_is_away_is_said_and_events_go_on(api: Api, slurm: Recorded, look: Reconciler) -> None:
    look.look()
    slurm.status = 500
    look.look()

    health = api.get("/v1/health")
    assert (health["status"], health["scheduler"]["ok"]) == ("degraded", False)
    assert "Zero Bytes were transmitted" in health["scheduler"]["message"]
    assert api.started(99)["recorded"]

    slurm.status = 200
    look.look()
    assert api.get("/v1/health")["status"] == "ok"


def test_nothing_listens(api: Api, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("SLURM_JWT=secret-token")
    look = Reconciler(
        api.service.database,
        api.service.board,
        Slurmrestd("http://127.0.0.1:1", "slurm", token_file=token),
        seconds=5,
        retention=timedelta(days=1),
    )
    look.look()

    message = look.status().message
    assert "no answer from http://127.0.0.1:1/openapi/v3" in message
    assert "secret-token" not in message


def test_newest_version_is_spoken_with_a_token_of_the_key(slurm: Recorded, look: Reconciler) -> None:
    look.look()

    assert look.status().api_version == slurm.answers["version"]
    claims = jwt.decode(slurm.tokens[0], KEY, algorithms=["HS256"])
    assert claims["sun"] == "slurm"
    assert claims["exp"] - claims["iat"] <= 3600
    assert KEY.decode() not in "".join(slurm.asked)


@pytest.mark.row("O-02.2")
def test_version_that_is_given_is_spoken(slurm: Recorded, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("SLURM_JWT=abc\n")
    Slurmrestd(slurm.url, "slurm", token_file=token, version=slurm.answers["version"]).jobs()

    assert slurm.asked == [f"/slurm/{slurm.answers['version']}/jobs"]
    assert slurm.tokens == ["abc"]


def test_one_question_settles_many(api: Api, slurm: Recorded, look: Reconciler) -> None:
    slurm.moment = "ended"
    look.look()

    assert sum("/slurmdb/" in path for path in slurm.asked) == 1
    assert {job["settled"] for job in api.get("/v1/jobs")["jobs"]} == {True}


def test_retention_removes_what_is_old_and_keeps_the_audit(api: Api) -> None:
    api.started(seconds=-86400 * 3)
    api.sample({"job_id": 7, "cpu_seconds": 1}, seconds=-86400 * 3 + 1)
    api.finished(seconds=-86400 * 3 + 2)
    api.started(8)
    changes = api.get("/v1/audit", "admin")["total"]
    look = Reconciler(api.service.database, api.service.board, None, seconds=5, retention=timedelta(days=2))
    look.look()

    assert states(api) == {8: "running"}
    assert api.get("/v1/audit", "admin")["total"] == changes


def test_thread_looks_by_itself_and_ends(api: Api, slurm: Recorded, look: Reconciler) -> None:
    seen = threading.Event()
    original = look.look

    def once() -> None:
        original()
        seen.set()

    look.look = once
    look.start()
    assert seen.wait(60)
    look.stop()

    assert states(api)[3] == "running"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"<html>", "answered 200, and no JSON object"),
        (b"[]", "answered 200, and no JSON object"),
        (b'{"paths": {"/v1/jobs": {}}}', "is no slurmrestd: its OpenAPI document names no path of Slurm"),
        (b'{"errors": [{"description": "down"}]}', "answered 200: down"),
    ],
)
def test_answer_that_is_none_of_slurmrestd_is_said(slurm: Recorded, tmp_path: Path, said: bytes, message: str) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    slurm.said = said
    with pytest.raises(SchedulerError) as error:
        Slurmrestd(slurm.url, "slurm", token_file=token).jobs()

    assert message in str(error.value)


def test_times_are_of_what_has_happened_not_of_what_is_planned(slurm: Recorded) -> None:
    jobs = {
        (moment, job.job_id): job
        for moment, answer in slurm.answers["jobs"].items()
        for job in read_jobs({"jobs": answer})
    }

    assert jobs["running", 3].finished_at is None, "slurmctld says when its limit is"
    assert jobs["requeued", 3].started_at is None, "slurmctld says when it may begin"
    assert jobs["ended", 1].finished_at is not None


@pytest.mark.parametrize("answer", [{}, {"jobs": None}, {"jobs": []}, {"nodes": None}])
def test_nothing_is_nothing(answer: Json) -> None:
    assert not [*read_jobs(answer), *read_records(answer), *read_nodes(answer)]


@pytest.mark.row("O-10.7", "O-10.8", "O-10.9")
@pytest.mark.parametrize(
    ("current", "state"),
    [
        ("TIMEOUT", "timeout"),
        (["TIMEOUT"], "timeout"),
        ("OUT_OF_MEMORY", "out_of_memory"),
        (["OUT_OF_MEMORY"], "out_of_memory"),
        (["NODE_FAIL"], "node_fail"),
        (["NODE_FAIL", "REQUEUED"], "node_fail"),
        (["PREEMPTED"], "preempted"),
        (["PENDING", "REQUEUED"], "requeued"),
        ("REQUEUED", "requeued"),
        (["BOOT_FAIL"], "boot_fail"),
        (["DEADLINE"], "deadline"),
        (["LAUNCH_FAILED"], "failed"),
    ],
)
def test_records_states_are_ours(current: object, state: str) -> None:
    [record] = read_records({"jobs": [{"job_id": 1, "state": {"current": current}, "time": {}}]})

    assert record.state is JobState(state)
