"""The API: who may ask, what it refuses, and how it says so."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pamela
import pytest
import sqlalchemy as sa
from app_sessions import gate
from app_sessions.audit import now
from app_sessions.gate import COOKIE, WRONG_PER_MINUTE
from app_sessions.models import Login
from app_sessions.schema import Error
from starlette.websockets import WebSocketDisconnect

from tests.unit.app_sessions.conftest import Api, Away, Serve

SESSIONS = "/api/app/sessions"
OF_USERS = (
    ("GET", "/api/user"),
    ("GET", "/api/app/applications"),
    ("GET", SESSIONS),
    ("POST", SESSIONS),
    ("GET", f"{SESSIONS}/x-1"),
    ("DELETE", f"{SESSIONS}/x-1"),
    ("POST", f"{SESSIONS}/x-1/restart"),
    ("POST", f"{SESSIONS}/x-1/connection"),
    ("GET", "/api/app/audit"),
)


@pytest.mark.row("V-11.4")
@pytest.mark.parametrize(("method", "path"), OF_USERS)
@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "token_missing"),
        ({"Authorization": "Bearer wrong"}, "token_unknown"),
        ({"Authorization": "Basic x"}, "token_missing"),
    ],
)
def test_nobody_gets_anything_without_a_token(
    api: Api, method: str, path: str, header: dict[str, str], code: str
) -> None:
    answer = api.client.request(method, path, headers=header)

    assert (answer.status_code, Error.model_validate(answer.json()).error.code) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_every_path_of_the_api_is_known_to_this_test(api: Api) -> None:
    paths = api.client.get("/openapi.json").json()["paths"]
    found = {(method.upper(), path.replace("{session_id}", "x-1")) for path, how in paths.items() for method in how}

    assert found - set(OF_USERS) == {("POST", "/api/login"), ("DELETE", "/api/login"), ("GET", "/api/app/health")}


def test_login_is_by_pam_and_its_refusal_does_not_say_who_exists(api: Api) -> None:
    for user in ("alice", "nobody-here"):
        answer = api.client.post("/api/login", json={"username": user, "password": "wrong"})
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "wrong user name or password")
    system = api.client.post("/api/login", json={"username": "root", "password": "of root"})
    assert (system.status_code, system.json()["error"]["code"]) == (403, "system_account")

    assert api.ask("GET", "/api/user") == {"user": "alice", "admin": False, "sessions_per_user": 3, "sessions_left": 3}


def test_too_many_wrong_passwords_are_not_tried(api: Api) -> None:
    wrong = {"username": "alice", "password": "wrong"}
    for _ in range(WRONG_PER_MINUTE):
        assert api.client.post("/api/login", json=wrong).status_code == 401

    late = api.client.post("/api/login", json={"username": "alice", "password": "of alice"})

    assert (late.status_code, late.json()["error"]["code"]) == (429, "too_many_requests")
    assert 1 <= int(late.headers["retry-after"]) <= 61


def test_wrong_passwords_that_come_at_once_are_not_tried_either(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def slowly(user: str, password: str, service: str) -> None:
        tried.append(password)
        time.sleep(0.3)  # as PAM does with a wrong one
        raise pamela.PAMError("no")

    monkeypatch.setattr(gate.pamela, "authenticate", slowly)

    def guess(number: int) -> int:
        body = {"username": "alice", "password": f"wrong-{number}"}
        return api.client.post("/api/login", json=body).status_code

    with ThreadPoolExecutor(60) as threads:
        codes = Counter(threads.map(guess, range(60)))

    # A minute may have turned in between.
    assert len(tried) == codes[401] <= 2 * WRONG_PER_MINUTE
    assert codes[429] == 60 - codes[401]


def test_application_that_a_user_lost_is_not_restarted(api: Api) -> None:
    api.put(owner="bob", app_id="xterm")

    code, said = api.refused("POST", f"{SESSIONS}/x-1/restart", 403, user="bob")

    assert (code, said) == ("application_forbidden", "bob may not start Terminal: ask an administrator")


def test_login_that_has_expired_or_ended_says_so(api: Api) -> None:
    api.token()
    with api.service.database.write() as session:
        session.execute(sa.update(Login).values(expires_at=now() - timedelta(seconds=1)))
    assert api.refused("GET", SESSIONS, 401)[0] == "token_expired"

    api.client.delete("/api/login", headers=api.headers())
    assert api.refused("GET", SESSIONS, 401)[0] == "token_unknown"


def test_events_end_with_the_login(api: Api) -> None:
    with api.client, api.client.websocket_connect("/api/app/events", headers=api.headers()) as socket:
        api.token("bob")
        api.client.delete("/api/login", headers=api.headers("bob"))
        told = [socket.receive_json()["type"], socket.receive_json()["type"]]
        api.client.delete("/api/login", headers=api.headers())
        api.service.sessions.events.tell({"type": "deleted", "id": "x-1"}, "alice")
        ended = socket.receive()

    assert told == ["sessions", "slurm"]
    assert (ended["type"], ended.get("code")) == ("websocket.close", 4401)


def test_events_end_when_the_login_expires(api: Api) -> None:
    api.token()
    with api.service.database.write() as session:
        session.execute(sa.update(Login).values(expires_at=now() + timedelta(seconds=1)))

    with api.client, api.client.websocket_connect("/api/app/events", headers=api.headers()) as socket:
        assert [socket.receive_json()["type"], socket.receive_json()["type"]] == ["sessions", "slurm"]
        timer = threading.Timer(5, api.service.sessions.events.close)  # the end of a test that fails
        timer.start()
        while (ended := socket.receive())["type"] == "websocket.send":
            pass
        timer.cancel()

    assert ended["code"] == 4401


def test_login_outlives_a_restart_and_its_token_is_not_kept(serve: Serve, tmp_path: Path) -> None:
    token = serve().token()
    again = serve()

    answer = again.client.get("/api/user", headers={"Authorization": f"Bearer {token}"})

    assert answer.json()["user"] == "alice"
    assert token.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())


def test_page_of_another_site_cannot_act_with_the_cookie(api: Api) -> None:
    api.client.cookies.set(COOKIE, api.token())
    own = api.client.post(SESSIONS, json={"app_id": "none"}, headers={"Origin": "http://testserver"})
    assert own.json()["error"]["code"] == "application_unknown"

    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {}):
        answer = api.client.post(SESSIONS, json={"app_id": "gedit"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_foreign"), headers
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        api.client.websocket_connect("/api/app/events", headers={"Origin": "http://evil.example"}) as socket,
    ):
        socket.receive_json()
    assert refused.value.code == 4403


def test_cookie_is_out_of_reach_of_scripts_and_other_sites(api: Api) -> None:
    answer = api.client.post("/api/login", json={"username": "alice", "password": "of alice"})

    assert re.search("HttpOnly.*SameSite=strict", answer.headers["set-cookie"], re.IGNORECASE)


def test_applications_are_those_that_the_user_may_start(api: Api) -> None:
    def ids(user: str) -> list[str]:
        return [app["id"] for app in api.ask("GET", "/api/app/applications", user=user)["applications"]]

    assert (ids("alice"), ids("bob")) == (["gedit", "xterm"], ["gedit"])
    code, said = api.refused("POST", SESSIONS, 403, user="bob", json={"app_id": "xterm"})
    assert (code, said) == ("application_forbidden", "bob may not start Terminal: ask an administrator")


def test_unknown_application_names_the_known(api: Api) -> None:
    code, said = api.refused("POST", SESSIONS, 404, json={"app_id": "paint"})

    assert (code, said) == ("application_unknown", "there is no application 'paint'; there are: gedit, xterm")


@pytest.mark.row("V-11.5")
def test_quotas_count_live_sessions_only(serve: Serve) -> None:
    api = serve(APP_SESSIONS_SESSIONS_PER_USER=2, APP_SESSIONS_SESSIONS_TOTAL=3)
    api.put("x-1", status="stopped")
    api.put("x-2", status="error")
    api.put("x-3", status="running")
    assert api.ask("GET", "/api/user")["sessions_left"] == 1
    api.put("x-4", status="pending")

    code, said = api.refused("POST", SESSIONS, 409, json={"app_id": "gedit"})
    assert (code, said) == ("quota_reached", "alice has 2 live sessions, which is the most: stop one of them first")
    assert api.refused("POST", f"{SESSIONS}/x-1/restart", 409)[0] == "quota_reached"
    api.put("x-5", status="creating", owner="carol")
    code, said = api.refused("POST", SESSIONS, 409, user="bob", json={"app_id": "gedit"})
    assert (code, said) == (
        "quota_reached",
        "there are 3 live sessions of all users, which is the most: try again later",
    )


@pytest.mark.row("V-11.4")
def test_session_of_somebody_else_is_not_there(api: Api) -> None:
    api.put("x-1", owner="bob", status="running", vnc_port=6080, node_ip="127.0.0.1", password="secret12")

    for method, path in OF_USERS[4:8]:
        code, said = api.refused(method, path, 404)
        assert (code, said) == ("session_not_found", "alice has no session x-1"), (method, path)
    assert api.ask("GET", SESSIONS) == {"sessions": []}


@pytest.mark.row("V-11.4")
def test_administrator_lists_and_sees_everybody_but_connects_to_nobody(serve: Serve) -> None:
    api = serve(APP_SESSIONS_ADMINS="carol dave")
    api.put("x-1", owner="bob", status="running", vnc_port=6080, node_ip="127.0.0.1", password="secret12")

    listed = api.ask("GET", f"{SESSIONS}?everybody=true", user="carol")["sessions"]
    assert [session["owner"] for session in listed] == ["bob"]
    assert api.ask("GET", f"{SESSIONS}/x-1", user="carol")["status"] == "running"
    assert api.refused("POST", f"{SESSIONS}/x-1/connection", 404, user="carol")[0] == "session_not_found"
    assert api.refused("GET", f"{SESSIONS}?everybody=true", 403, user="alice")[0] == "admin_only"
    assert api.refused("GET", "/api/app/audit", 403, user="alice")[0] == "admin_only"


@pytest.mark.row("V-05.6")
def test_session_has_the_seeds_fields(api: Api) -> None:
    api.put("x-1", status="running", node="viz1", node_ip="10.0.0.7", vnc_port=6081, job_id=7, password="secret12")

    shown = api.ask("GET", f"{SESSIONS}/x-1")

    assert {name: shown[name] for name in ("status", "node", "node_ip", "displayUrl")} == {
        "status": "running",
        "node": "viz1",
        "node_ip": "10.0.0.7",
        "displayUrl": "ws://10.0.0.7:6081",
    }
    assert "secret12" not in str(shown)


def test_connection_has_the_password_for_the_owner_and_nobodys_log(api: Api) -> None:
    api.put("x-1", status="running", node_ip="127.0.0.1", vnc_port=6081, password="secret12")

    answer = api.client.post(f"{SESSIONS}/x-1/connection", headers=api.headers())

    assert answer.json()["password"] == "secret12"
    assert answer.json()["path"] == f"{SESSIONS}/x-1/websockify"
    assert answer.json()["protocols"][0] == "binary"
    assert answer.headers["cache-control"] == "no-store"
    with api.service.database.read() as session:
        assert "secret12" not in str(session.execute(sa.text("select * from audit")).all())


@pytest.mark.parametrize("status", ["creating", "pending", "stopped", "error"])
def test_session_that_does_not_run_has_no_connection_and_says_why(api: Api, status: str) -> None:
    api.put("x-1", status=status, message="the image is missing")

    code, said = api.refused("POST", f"{SESSIONS}/x-1/connection", 409)

    assert (code, said) == (
        "session_not_running",
        f"the session is {status}, it has no display now: the image is missing",
    )


@pytest.mark.row("V-10.3")
def test_session_whose_slurm_does_not_answer_ends_in_error_with_its_words(api: Api) -> None:
    with api.client:
        made = api.ask("POST", SESSIONS, 201, json={"app_id": "gedit"})
        assert (made["status"], made["owner"], made["title"]) == ("creating", "alice", "Text editor")
        with api.client.websocket_connect("/api/app/events", headers=api.headers()) as socket:
            first = socket.receive_json()
            shown = first["sessions"][0]
            while shown["status"] != "error":
                message = socket.receive_json()
                shown = message.get("session", shown)

    assert shown["message"] == Away.SAID


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.app_id"),
        ({"app_id": 7}, "body.app_id"),
        ({"app_id": "x" * 65}, "body.app_id"),
        ({"app_id": "gedit", "user": "bob"}, "body.user"),
    ],
)
def test_body_that_does_not_fit_is_refused_and_named(api: Api, body: dict[str, object], where: str) -> None:
    code, said = api.refused("POST", SESSIONS, 422, json=body)

    assert (code, said.startswith(where)) == ("invalid_request", True), said


def test_large_body_and_many_requests_are_refused(serve: Serve) -> None:
    api = serve(APP_SESSIONS_BODY_BYTES=1024, APP_SESSIONS_REQUESTS_PER_MINUTE=5)
    large = api.client.post("/api/login", content=b"x" * 1025)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")

    answers = [api.client.get(SESSIONS, headers=api.headers()).status_code for _ in range(6)]
    assert answers == [200] * 5 + [429]


def test_health_is_for_anybody_and_tells_no_names(api: Api) -> None:
    with api.client:
        answer = api.client.get("/api/app/health").json()

    assert answer["database"] == {"kind": "SQLite", "ok": True, "message": ""}
    assert answer["live_sessions"] == 0
    assert "controller" not in str(answer)


def test_page_loads_nothing_from_elsewhere(api: Api) -> None:
    answer = api.client.get("/")

    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"https?://", answer.text)
    for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text):
        assert api.client.get(path).status_code == 200, path


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", SESSIONS, 405)])
def test_refusals_of_the_framework_have_the_same_form(api: Api, method: str, path: str, status: int) -> None:
    answer = api.client.request(method, path)

    assert answer.status_code == status
    Error.model_validate(answer.json())


@pytest.mark.row("V-11.6")
def test_audit_has_who_what_and_from_where(serve: Serve) -> None:
    api = serve(APP_SESSIONS_ADMINS="carol")
    api.client.post("/api/login", json={"username": "alice", "password": "wrong"})
    api.put("x-1", status="stopped")
    with api.client:
        api.ask("POST", f"{SESSIONS}/x-1/restart")

    log = api.ask("GET", "/api/app/audit", user="carol")["entries"]

    seen = {(one["action"], one["who"], one["source"], one["session_id"]) for one in log}
    assert ("login-refused", "alice", "testclient", "") in seen
    assert ("login", "alice", "testclient", "") in seen
    assert ("restart", "alice", "testclient", "x-1") in seen
    own = api.ask("GET", "/api/app/audit?session_id=x-1&limit=1", user="carol")
    assert {one["session_id"] for one in own["entries"]} == {"x-1"}
