"""The API: what it lists, who may ask, what it refuses, and how it says so."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from slurm_observability.schema import Error
from slurm_observability.service.gate import COOKIE, WRONG_TOKENS_PER_MINUTE

from tests.unit.observability.service.conftest import Api, Serve, at

READERS = (
    "/v1/jobs",
    "/v1/jobs/counts",
    "/v1/jobs/7",
    "/v1/jobs/7/metrics",
    "/v1/jobs/7/events",
    "/v1/nodes",
    "/metrics",
)


def ids(answer: Any) -> list[int]:
    """The ids of listed jobs."""
    return [job["job_id"] for job in answer["jobs"]]


@pytest.fixture
def some(api: Api) -> Api:
    """Five jobs of two users on two nodes; two have ended."""
    for job_id in range(1, 6):
        api.started(job_id, user="alice" if job_id % 2 else "bob", node_list=["n1"] if job_id < 4 else ["n2", "n1"])
    api.finished(1)
    api.finished(2, final_state="failed", exit_code=1)
    return api


@pytest.mark.row("O-11.2")
def test_jobs_are_listed_newest_first_with_their_total(some: Api) -> None:
    listed = some.get("/v1/jobs")

    assert (ids(listed), listed["total"]) == ([5, 4, 3, 2, 1], 5)


@pytest.mark.row("O-11.3")
@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"state": "running"}, [5, 4, 3]),
        ({"state": ["completed", "failed"]}, [2, 1]),
        ({"user": "bob"}, [4, 2]),
        ({"user": "BOB"}, []),
        ({"node": "n2"}, [5, 4]),
        ({"node": "n1", "user": "alice", "state": "running"}, [5, 3]),
        ({"user": "' or 1=1 --"}, []),
    ],
)
def test_jobs_are_filtered(some: Api, filters: dict[str, Any], found: list[int]) -> None:
    listed = some.get("/v1/jobs", **filters)

    assert (ids(listed), listed["total"]) == (found, len(found))


@pytest.mark.row("O-11.4")
def test_jobs_are_paged(some: Api) -> None:
    page = some.get("/v1/jobs", limit=2, offset=2)

    assert (ids(page), page["total"], page["limit"], page["offset"]) == ([3, 2], 5, 2, 2)
    assert ids(some.get("/v1/jobs", offset=99)) == []


@pytest.mark.row("O-11.7")
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=many", "offset=-1", "state=sleeping", "user=%00", "history=-1"]
)
def test_query_that_does_not_fit_is_refused_and_named(some: Api, query: str) -> None:
    answer = some.client.get(f"/v1/jobs?{query}", headers=some.headers("reader"))

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert query.partition("=")[0] in answer.json()["error"]["message"]


@pytest.mark.row("O-11.5")
def test_job_is_found_by_its_id_in_both_ways(some: Api) -> None:
    assert some.get("/v1/jobs/3") | {"runtime_seconds": 0} == some.get("/v1/jobs/slurm-3") | {"runtime_seconds": 0}
    assert some.get("/v1/jobs/3")["id"] == "slurm-3"


@pytest.mark.row("O-11.7")
@pytest.mark.parametrize("job", ["99", "slurm-99", "seven", "-1", "0", "slurm-", "7x", "99999999999", "%00", "٣"])
@pytest.mark.parametrize("below", ["", "/metrics", "/events"])
def test_job_that_is_not_there_is_not_found(some: Api, job: str, below: str) -> None:
    assert some.get(f"/v1/jobs/{job}{below}", status=404)["error"]["code"] == "job_not_found"


@pytest.mark.row("O-11.6")
def test_metrics_of_a_job_are_what_its_nodes_reported(api: Api) -> None:
    api.started(node_list=["n1", "n2"])
    step = {"name": "0", "cpu_seconds": 1.0, "memory_bytes": 5}
    gpu = {"gpu_id": "0", "gpu_vendor": "nvidia", "utilization_percent": 50, "stand_in": True}
    for second in (1, 2, 3):
        api.sample({"job_id": 7, "cpu_usage_percent": 10 * second, "steps": [step], "gpus": [gpu]}, seconds=second)
    api.sample({"job_id": 7, "memory_usage_bytes": 9}, node="n2", seconds=1.5)

    read = api.get("/v1/jobs/7/metrics")

    by_node = {node["node"]: node["samples"] for node in read["nodes"]}
    assert [sample["cpu_usage_percent"] for sample in by_node["n1"]] == [10, 20, 30]
    assert by_node["n1"][0]["steps"] == [step]
    assert by_node["n1"][0]["gpus"][0]["stand_in"]
    assert [sample["memory_usage_bytes"] for sample in by_node["n2"]] == [9]
    assert read["every"] == 1
    since = api.get("/v1/jobs/7/metrics", since=at(2), until=at(2.5))
    assert [len(node["samples"]) for node in since["nodes"]] == [1, 0]


def test_long_series_is_thinned_out_and_says_so(api: Api) -> None:
    api.started()
    for second in range(11):
        api.sample({"job_id": 7, "cpu_seconds": second}, seconds=second)

    read = api.get("/v1/jobs/7/metrics", points=4)

    assert [sample["cpu_seconds"] for sample in read["nodes"][0]["samples"]] == [1, 4, 7, 10], "the last is there"
    assert read["every"] == 3


def test_list_has_small_series_where_they_are_asked_for(api: Api) -> None:
    api.started(node_list=["n1", "n2"])
    for node, cpu in (("n1", 10), ("n2", 30)):
        api.sample({"job_id": 7, "cpu_usage_percent": cpu, "memory_usage_bytes": 5}, node=node)

    assert api.get("/v1/jobs")["jobs"][0]["history"] is None
    [point] = api.get("/v1/jobs", history=30)["jobs"][0]["history"]
    assert (point["cpu_usage_percent"], point["memory_usage_bytes"]) == (20, 10)


@pytest.mark.row("O-11.1")
def test_health_says_how_database_scheduler_and_agents_are(api: Api) -> None:
    api.sample()

    health = api.get("/v1/health")

    assert health["status"] == "ok"
    assert health["database"] == {"ok": True, "kind": "SQLite", "message": ""}
    assert health["scheduler"]["backend"] == "none"
    assert health["agents"] == {"seen": 1, "silent": []}
    assert re.fullmatch(r"\d+\.\d+\.\d+", health["version"])


def test_health_needs_no_token_but_names_nothing_without(api: Api) -> None:
    api.sample(node="secret-name", timestamp="2026-01-01T00:00:00Z", interval_seconds=0.001)

    assert api.client.get("/v1/health").status_code == 200
    assert "secret-name" not in api.client.get("/v1/health").text
    assert api.get("/v1/health")["agents"]["silent"] == ["secret-name"]


@pytest.mark.row("O-11.1", "O-11.7")
def test_database_that_is_away_is_503_everywhere_and_comes_back(serve: Serve) -> None:
    api = serve()
    file = api.service.settings.state_folder / "observability.db"
    api.service.database.close()
    moved = file.rename(file.with_suffix(".away"))
    file.mkdir()

    health = api.client.get("/v1/health")
    assert (health.status_code, health.json()["status"]) == (503, "down")
    error = api.started(status=503)["error"]
    assert error["code"] == "database_unavailable"
    assert api.get("/v1/jobs", status=503)["error"]["code"] == "database_unavailable"

    file.rmdir()
    moved.rename(file)
    assert api.started()["recorded"]
    assert api.get("/v1/health")["status"] == "ok"


@pytest.mark.row("O-14.1")
@pytest.mark.parametrize("path", [*READERS, "/v1/audit"])
@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        (None, 401, "token_missing"),
        ("Bearer wrong", 401, "token_unknown"),
        ("Bearer ", 401, "token_unknown"),
        ("Basic YTpi", 401, "token_unknown"),
        ("agent", 403, "role_insufficient"),
    ],
)
def test_reading_needs_a_token_that_may_read(api: Api, path: str, header: str | None, status: int, code: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = api.client.get(path, headers=api.headers("agent") if header == "agent" else headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.row("O-14.1")
@pytest.mark.parametrize("path", ["/v1/events/job-started", "/v1/events/job-finished", "/v1/events", "/v1/samples"])
@pytest.mark.parametrize(("role", "status"), [(None, 401), ("reader", 403)])
def test_reporting_needs_a_token_of_an_agent_before_the_body_is_read(
    api: Api, path: str, role: str | None, status: int
) -> None:
    answer = api.client.post(path, content=b"{", headers=api.headers(role) if role else {})

    assert answer.status_code == status, answer.text


@pytest.mark.row("O-14.1")
def test_audit_is_for_administrators(api: Api) -> None:
    assert api.get("/v1/audit", "reader", status=403)["error"]["message"].endswith("this needs admin")
    assert api.get("/v1/jobs", "admin")["total"] == 0, "who may do everything"


def test_revoked_token_is_refused_at_once(api: Api) -> None:
    api.service.gate.tokens.revoke("reader")

    assert api.get("/v1/jobs", status=401)["error"]["code"] == "token_unknown"


@pytest.mark.row("O-11.9", "O-14.3")
def test_audit_says_who_changed_what_when_and_from_where(api: Api) -> None:
    api.started(key="begin", cluster="main")
    api.finished(key="end", final_state="failed", exit_code=2)

    log = api.get("/v1/audit", "admin", job_id=7)

    assert [change["action"] for change in log["changes"]] == ["job-finished", "job-started"]
    end, begin = log["changes"]
    assert (end["who"], end["source"], end["key"], end["cluster"], end["run"]) == (
        "agent",
        "testclient",
        "end",
        "main",
        0,
    )
    assert (end["before"]["state"], end["after"]["state"]) == ("running", "failed")
    assert (end["before"]["exit_code"], end["after"]["exit_code"]) == (None, 2)
    assert begin["before"] is None
    assert (begin["after"]["user"], begin["after"]["state"]) == ("alice", "running")
    assert begin["at"] <= end["at"]


def test_audit_is_paged_and_filtered(some: Api) -> None:
    assert some.get("/v1/audit", "admin")["total"] == 7
    assert len(some.get("/v1/audit", "admin", limit=3, offset=6)["changes"]) == 1
    assert some.get("/v1/audit", "admin", job_id=2)["total"] == 2


@pytest.mark.row("O-11.7")
def test_too_many_requests_of_one_token_wait_and_others_do_not(serve: Serve) -> None:
    api = serve(OBSERVABILITY_REQUESTS_PER_MINUTE=5)
    answers = [api.client.get("/v1/jobs", headers=api.headers("reader")) for _ in range(11)]

    # A minute may have turned in between.
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[0].json()["error"]["code"] == "too_many_requests"
    assert 1 <= int(refused[0].headers["retry-after"]) <= 61
    assert api.get("/v1/jobs", "admin")["total"] == 0


def test_one_who_guesses_tokens_waits(api: Api) -> None:
    wrong = [
        api.client.get("/v1/jobs", headers={"Authorization": f"Bearer wrong-{number}"})
        for number in range(2 * WRONG_TOKENS_PER_MINUTE + 1)
    ]

    assert wrong[0].status_code == 401
    assert 429 in {answer.status_code for answer in wrong}
    assert api.started()["recorded"], "an agent has the address of the jobs on its node"


@pytest.mark.row("O-11.7")
@pytest.mark.parametrize("told", [True, False])
def test_body_that_is_too_large_is_refused(serve: Serve, told: bool) -> None:
    api = serve(OBSERVABILITY_BODY_BYTES=2048)
    body = json.dumps({"job_id": 7, "name": "x" * 4096}).encode()
    content = body if told else iter([body[:2000], body[2000:]])
    headers = api.headers("agent", Idempotency_Key="k", Content_Type="application/json")
    answer = api.client.post("/v1/events/job-started", content=content, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert api.started()["recorded"], "the rest is unharmed"


@pytest.mark.row("O-11.7")
def test_unknown_paths_and_methods_are_refused_in_the_same_form(api: Api) -> None:
    for method, path, status, code in (
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/events/job-started", 405, "method_not_allowed"),
        ("GET", "/static/../app.py", 404, "not_found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
    ):
        answer = api.client.request(method, path)
        assert (answer.status_code, Error.model_validate_json(answer.text).error.code) == (status, code), path


def test_fault_of_ours_is_500_without_its_text(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr("slurm_observability.service.queries.nodes", fail)

    answer = api.client.get("/v1/nodes", headers=api.headers("reader"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


@pytest.mark.row("O-11.8")
def test_openapi_describes_every_path_with_its_refusals(api: Api) -> None:
    document = api.client.get("/openapi.json").json()

    assert {
        "/v1/events/job-started",
        "/v1/events/job-finished",
        "/v1/samples",
        "/v1/health",
        "/v1/jobs",
        "/v1/jobs/{job}",
        "/v1/jobs/{job}/metrics",
        "/v1/jobs/{job}/events",
        "/v1/nodes",
        "/v1/audit",
        "/metrics",
    } <= document["paths"].keys()
    post = document["paths"]["/v1/events/job-started"]["post"]
    assert {"200", "201", "401", "403", "409", "413", "422", "429", "503"} <= post["responses"].keys()
    assert post["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
    assert [one["name"] for one in post["parameters"]] == ["Idempotency-Key"]
    assert post["security"]
    assert "404" in document["paths"]["/v1/jobs/{job}"]["get"]["responses"]


def sign_in(api: Api, role: str) -> Any:
    """Sign the client's dashboard in."""
    return api.client.post("/session", json={"token": api.secrets[role]})


def test_dashboard_signs_in_with_a_token_and_keeps_a_cookie_that_is_none(api: Api) -> None:
    answer = sign_in(api, "reader")

    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert api.secrets["reader"] not in cookie
    assert api.client.get("/v1/jobs").status_code == 200
    assert api.client.delete("/session").status_code == 204
    assert api.client.get("/v1/jobs").status_code == 401


def test_session_ends_with_its_token(api: Api) -> None:
    sign_in(api, "reader")
    api.service.gate.tokens.revoke("reader")

    assert api.client.get("/v1/jobs").status_code == 401


def test_cookie_of_a_signed_out_dashboard_is_good_for_nothing(api: Api) -> None:
    sign_in(api, "reader")
    kept = api.client.cookies[COOKIE]
    api.client.delete("/session")

    assert api.client.get("/v1/jobs", headers={"Cookie": f"{COOKIE}={kept}"}).status_code == 401


def test_cookie_changes_nothing(api: Api) -> None:
    sign_in(api, "admin")

    answer = api.client.post("/v1/samples", json={"node": "n1", "timestamp": at(0), "job_count": 0})
    assert answer.status_code == 401


def test_dashboard_is_not_for_agents_nor_for_wrong_tokens(api: Api) -> None:
    assert sign_in(api, "agent").json()["error"]["code"] == "role_insufficient"
    assert api.client.post("/session", json={"token": "x"}).json()["error"]["code"] == "token_unknown"
    assert not api.client.cookies


@pytest.mark.row("O-14.4")
def test_dashboard_is_served_whole_and_loads_nothing_from_elsewhere(api: Api) -> None:
    page = api.client.get("/")

    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert loaded
    for path in loaded:
        assert path.startswith("/static/"), path
        answer = api.client.get(path)
        assert answer.status_code == 200, path
        assert "http://" not in answer.text.replace("http://www.w3.org/", ""), path
        assert "https://" not in answer.text, path
