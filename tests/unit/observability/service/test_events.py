"""Events: each run of a job has one start and one end, whoever reports, how often, and in which order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from slurm_observability.schema import MOST_AT_ONCE, JobState

from tests.unit.observability.service.conftest import Api, Serve, at

STARTED = {
    "job_id": 7,
    "cluster": "main",
    "user": "alice",
    "node_list": ["n1", "n2"],
    "cpu_allocation": 8,
    "memory_allocation_mb": 4096,
    "gpu_allocation": 2,
    "gpu_vendor": "nvidia",
    "gpu_devices": ["0", "1"],
    "partition": "debug",
    "account": "physics",
    "cgroup_path": "slurm/uid_1000/job_7",
    "timestamp": at(0),
    "name": "burn",
    "array_job_id": 5,
    "array_task_id": 2,
    "het_job_id": 6,
    "restarts": 0,
    "source": "prolog",
    "unread": ["gpu_vendor: no nvidia-smi"],
}


def kinds(api: Api, job: object = 7) -> list[tuple[int, str, str]]:
    """The events of a job: run, kind, source."""
    return [(one["run"], one["kind"], one["source"]) for one in api.get(f"/v1/jobs/{job}/events")["events"]]


def runs(api: Api, job: object = 7) -> list[tuple[int, str]]:
    """The runs of a job: number, state."""
    return [(one["run"], one["state"]) for one in api.get(f"/v1/jobs/{job}")["runs"]]


@pytest.mark.row("O-01.1", "O-04.1", "O-04.2", "O-04.3", "O-04.4", "O-04.5", "O-04.6")
def test_started_event_is_the_job_that_the_api_shows(api: Api) -> None:
    answer = api.event("started", **STARTED)

    assert answer == {"key": "key-1", "job_id": 7, "run": 0, "state": "running", "recorded": True}
    job = api.get("/v1/jobs/7")
    assert {name: job[name] for name in STARTED if name in job} == {
        name: value for name, value in STARTED.items() if name in job
    }
    assert (job["state"], job["started_at"]) == ("running", at(0).replace("+00:00", "Z"))
    assert (
        api.get("/v1/jobs/7/events")["events"][0]["body"].items()
        >= {**STARTED, "timestamp": at(0).replace("+00:00", "Z")}.items()
    )


@pytest.mark.row("O-01.2", "O-04.7", "O-04.8", "O-04.9")
def test_finished_event_ends_the_job(api: Api) -> None:
    api.started()
    answer = api.finished(
        final_state="failed", exit_code=42, signal=0, peak_memory_bytes=2**33, cpu_seconds=3.5, seconds=20
    )

    job = api.get("/v1/jobs/7")
    assert answer["state"] == job["state"] == "failed"
    assert (job["exit_code"], job["signal"], job["peak_memory_bytes"], job["cpu_seconds"]) == (42, 0, 2**33, 3.5)
    assert (job["runtime_seconds"], job["settled"]) == (20, False)


@pytest.mark.row("O-06.4")
def test_same_key_again_is_answered_as_at_first_and_changes_nothing(api: Api) -> None:
    first = api.started(key="once")
    api.finished()
    audit = api.get("/v1/audit", "admin")["total"]

    again = api.started(key="once", status=200, user="mallory")

    assert again == first, "the answer of then, though the job has ended meanwhile"
    assert api.get("/v1/jobs/7")["user"] == "alice"
    assert api.get("/v1/audit", "admin")["total"] == audit


def test_a_key_is_one_event(api: Api) -> None:
    api.started(key="once")

    assert api.started(8, key="once", status=409)["error"]["code"] == "idempotency_key_reused"
    assert api.finished(key="once", status=409)["error"]["message"].startswith("the key once was the started event")
    assert api.get("/v1/jobs/8", status=404)["error"]["code"] == "job_not_found"


@pytest.mark.row("O-06.4")
def test_same_event_at_once_from_many_is_one_event(api: Api) -> None:
    with ThreadPoolExecutor(8) as pool:
        body = {"user": "alice", "node_list": ["n1"], "source": "prolog", "timestamp": at(0), "job_id": 7}
        headers = api.headers("agent", Idempotency_Key="same")
        sent = [pool.submit(api.client.post, "/v1/events/job-started", json=body, headers=headers) for _ in range(24)]
        answers = [one.result() for one in sent]

    assert sorted(answer.status_code for answer in answers) == [200] * 23 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert kinds(api) == [(0, "started", "prolog")]


def test_reports_at_once_of_all_sources_are_one_run(api: Api) -> None:
    def report(number: int) -> None:
        for source in ("prolog", "prologslurmctld"):
            api.started(number, source=source, key=f"{source}-{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(report, [100 + number % 10 for number in range(10)]))

    jobs = api.get("/v1/jobs", limit=100)
    assert jobs["total"] == 10
    assert [len(kinds(api, job["job_id"])) for job in jobs["jobs"]] == [1] * 10


@pytest.mark.row("O-05.1")
def test_second_source_completes_what_is_empty_and_makes_no_second_event(api: Api) -> None:
    api.started(source="prologslurmctld", name="burn", cpu_allocation=4)
    answer = api.started(source="prolog", seconds=2, cgroup_path="slurm/job_7", cpu_allocation=99, user="other")

    job = api.get("/v1/jobs/7")
    assert not answer["recorded"]
    assert (job["name"], job["cgroup_path"], job["cpu_allocation"], job["user"]) == ("burn", "slurm/job_7", 4, "alice")
    assert kinds(api) == [(0, "started", "prologslurmctld")]
    audited = api.get("/v1/audit", "admin", job_id=7)["changes"][0]
    assert audited["after"]["cgroup_path"] == "slurm/job_7"
    assert audited["before"]["cgroup_path"] is None


def test_second_end_completes_and_does_not_change_the_state(api: Api) -> None:
    api.started()
    api.finished(source="epilogslurmctld", final_state="failed", exit_code=3)
    answer = api.finished(source="epilog", final_state="completed", exit_code=0, seconds=11, peak_memory_bytes=5)

    job = api.get("/v1/jobs/7")
    assert (job["state"], job["exit_code"], job["peak_memory_bytes"]) == ("failed", 3, 5)
    assert (answer["recorded"], answer["state"]) == (False, "failed")
    assert kinds(api) == [(0, "started", "prolog"), (0, "finished", "epilogslurmctld")]


@pytest.mark.row("O-05.4")
def test_requeued_job_has_two_runs(api: Api) -> None:
    api.started(seconds=0)
    api.finished(seconds=10, final_state="failed", signal=15)
    api.started(seconds=20)

    assert runs(api) == [(0, "failed"), (1, "running")]
    assert api.get("/v1/jobs")["total"] == 1, "each job once"
    assert api.get("/v1/jobs/7", run=0)["state"] == "failed"
    api.finished(seconds=30)
    assert runs(api) == [(0, "failed"), (1, "completed")]
    assert len(kinds(api)) == 4


def test_restarts_decide_which_run_it_is_in_any_order(api: Api) -> None:
    api.started(seconds=20, restarts=1)
    api.finished(seconds=30, restarts=1)
    api.finished(seconds=10, restarts=0, final_state="failed")
    api.started(seconds=0, restarts=0)

    by_restarts = {api.get("/v1/jobs/7", run=number)["restarts"]: number for number, _ in runs(api)}
    assert sorted(by_restarts) == [0, 1]
    assert {restarts: dict(runs(api))[number] for restarts, number in by_restarts.items()} == {
        0: "failed",
        1: "completed",
    }
    assert sorted(kind for _, kind, _ in kinds(api)) == ["finished"] * 2 + ["started"] * 2


@pytest.mark.parametrize("restarts", [0, None])
def test_script_that_a_busy_head_node_starts_late_tells_of_the_same_run_if_it_says_so(
    api: Api, restarts: int | None
) -> None:
    api.started(seconds=0, restarts=restarts)
    api.started(seconds=40, restarts=restarts, source="prologslurmctld")

    assert [run for run, _ in runs(api)] == ([0] if restarts == 0 else [0, 1])


def test_last_run_is_the_one_with_most_restarts_also_when_an_earlier_one_is_reported_later(api: Api) -> None:
    api.started(seconds=20, restarts=1)
    api.finished(seconds=10, restarts=0, final_state="failed")

    job = api.get("/v1/jobs/7")
    assert (job["restarts"], job["state"]) == (1, "running")


def test_end_before_start_is_one_run(api: Api) -> None:
    ended = api.finished(seconds=10, exit_code=3, final_state="failed")
    begun = api.started(seconds=0, user="bob")

    job = api.get("/v1/jobs/7")
    assert ended["run"] == begun["run"] == 0
    assert (job["state"], job["user"], job["exit_code"], job["runtime_seconds"]) == ("failed", "bob", 3, 10)
    assert kinds(api) == [(0, "started", "prolog"), (0, "finished", "epilog")]


def test_end_that_was_lost_is_implied_by_the_next_start_and_comes_late(api: Api) -> None:
    api.started(seconds=0)
    api.started(seconds=20)
    assert runs(api) == [(0, "requeued"), (1, "running")]

    api.finished(seconds=19, final_state="failed", exit_code=1)

    assert runs(api) == [(0, "failed"), (1, "running")]
    assert api.get("/v1/jobs/7", run=0)["runtime_seconds"] == 19


def test_job_id_that_begins_anew_is_another_run(api: Api) -> None:
    api.started(seconds=-50, restarts=0)
    api.finished(seconds=-40, restarts=0)
    api.started(seconds=0, restarts=0, user="bob")

    assert runs(api) == [(0, "completed"), (1, "running")]


def test_job_of_another_cluster_is_another_job(api: Api) -> None:
    api.started(cluster="east")
    api.started(cluster="west", user="bob")

    assert api.get("/v1/jobs")["total"] == 2
    assert [api.get("/v1/jobs/7", cluster=name)["user"] for name in ("east", "west")] == ["alice", "bob"]
    api.finished(cluster="east")
    assert [api.get("/v1/jobs/7", cluster=name)["state"] for name in ("east", "west")] == ["completed", "running"]


def test_cluster_that_one_source_does_not_know_is_told_by_another(api: Api) -> None:
    api.started(source="prolog")
    api.started(source="prologslurmctld", cluster="main")
    api.finished()

    assert api.get("/v1/jobs")["total"] == 1
    assert (api.get("/v1/jobs/7")["cluster"], api.get("/v1/jobs/7")["state"]) == ("main", "completed")


@pytest.mark.parametrize("state", [state for state in JobState if state.final])
def test_every_final_state_ends_a_job(api: Api, state: JobState) -> None:
    api.started()

    assert api.finished(final_state=state.value)["state"] == state.value


@pytest.mark.row("O-11.7")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"job_id": "seven"}, "job_id"),
        ({"job_id": 0}, "job_id"),
        ({"job_id": 2**32}, "job_id"),
        ({"job_id": None}, "job_id"),
        ({"user": 7}, "user"),
        ({"user": "a\nb"}, "user"),
        ({"user": "a" * 256}, "user"),
        ({"name": "\0"}, "name"),
        ({"node_list": "n1"}, "node_list"),
        ({"node_list": ["n1 n2"]}, "node_list"),
        ({"node_list": ['n1"} 1\nhpc_node_job_count{node="x']}, "node_list"),
        ({"cpu_allocation": -1}, "cpu_allocation"),
        ({"cpu_allocation": 2**63}, "cpu_allocation"),
        ({"gpu_vendor": "intel"}, "gpu_vendor"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-01-01T00:00:00"}, "timestamp"),
        ({"source": "epilog"}, "source"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_event_that_does_not_fit_is_refused_and_names_the_field(api: Api, change: dict[str, Any], named: str) -> None:
    error = api.event("started", 422, **{**STARTED, **change})["error"]

    assert error["code"] == "invalid_request"
    assert named in error["message"]
    assert api.get("/v1/jobs")["total"] == 0


def test_state_that_is_not_final_ends_no_job(api: Api) -> None:
    api.started()

    assert "running" in api.finished(final_state="running", status=422)["error"]["message"]
    assert api.get("/v1/jobs/7")["state"] == "running"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"user": "\\ud800"}', b"[" * 100_000]
)
def test_body_that_is_no_event_is_refused(api: Api, body: bytes) -> None:
    headers = api.headers("agent", Idempotency_Key="k", Content_Type="application/json")
    answer = api.client.post("/v1/events/job-started", content=body, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) in {(422, "invalid_request"), (400, "malformed")}


@pytest.mark.parametrize("key", [None, "", "a b", "k" * 201, "ä".encode()])
def test_event_needs_a_key(api: Api, key: Any) -> None:
    headers: Any = [("Authorization", f"Bearer {api.secrets['agent']}")]
    if key is not None:
        headers.append(("Idempotency-Key", key))
    answer = api.client.post("/v1/events/job-started", json=STARTED, headers=headers)

    assert answer.status_code == 422, answer.text
    assert "Idempotency-Key".lower() in answer.json()["error"]["message"].lower()


def report(kind: str, job_id: int, key: str, **more: Any) -> dict[str, Any]:
    """An event among several."""
    event = {"job_id": job_id, "timestamp": at(0 if kind == "started" else 10), "node_list": ["n1"], **more}
    if kind == "finished":
        event = {"final_state": "completed", "source": "epilog", **event}
    return {"kind": f"job-{kind}", "key": key, "event": {"source": "prolog", **event}}


def test_several_events_at_once_are_as_if_each_had_come_alone(api: Api) -> None:
    reports = [report("started", 7, "a"), report("started", 8, "b"), report("finished", 7, "c")]

    answer = api.several(*reports)

    assert [(one["key"], one["job_id"], one["state"], one["recorded"]) for one in answer["events"]] == [
        ("a", 7, "running", True),
        ("b", 8, "running", True),
        ("c", 7, "completed", True),
    ]
    assert (runs(api, 7), runs(api, 8)) == ([(0, "completed")], [(0, "running")])
    assert api.several(*reports) == answer, "the same keys again change nothing"
    assert kinds(api, 7) == [(0, "started", "prolog"), (0, "finished", "epilog")]
    assert api.finished(7, key="c", status=200)["key"] == "c", "a key is the same alone and among others"


def test_one_of_several_that_does_not_fit_is_named_and_none_is_taken(api: Api) -> None:
    error = api.several(report("started", 7, "a"), report("started", 8, "b", user=5), status=422)["error"]

    assert "events.1" in error["message"]
    assert api.get("/v1/jobs")["total"] == 0


def test_one_of_several_whose_key_was_anothers_leaves_those_before_it_taken(api: Api) -> None:
    api.started(6, key="b")

    error = api.several(report("started", 7, "a"), report("started", 8, "b"), status=409)["error"]

    assert error["code"] == "idempotency_key_reused"
    assert [job["job_id"] for job in api.get("/v1/jobs")["jobs"]] == [7, 6]


@pytest.mark.parametrize("count", [0, MOST_AT_ONCE + 1])
def test_no_events_or_too_many_at_once_are_refused(api: Api, count: int) -> None:
    reports = [report("started", job, f"k{job}") for job in range(1, count + 1)]

    assert "events" in api.several(*reports, status=422)["error"]["message"]


def test_what_was_taken_is_there_after_a_restart(serve: Serve) -> None:
    before = serve()
    before.started(key="once")
    before.sample({"job_id": 7, "memory_usage_bytes": 5})
    before.service.database.close()

    after = serve()

    assert after.started(key="once", status=200)["run"] == 0
    assert after.get("/v1/jobs/7")["state"] == "running"
    assert after.get("/v1/jobs/7")["usage"]["memory_usage_bytes"] == 5
    assert list(after.series("hpc_job_memory_usage_bytes")) == ['job_id="7",node="n1",user="alice"']
