"""The way of a display to the browser: to the right owner, for a short time, and with words where there is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from app_sessions.audit import now
from app_sessions.models import SessionRow
from starlette.websockets import WebSocketDisconnect

from tests.unit.app_sessions.conftest import Api, Serve
from tests.unit.app_sessions.displays import Display, at_port


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a display that listens as long as the test runs."""
    found: list[int] = []
    ready, over = threading.Event(), threading.Event()

    async def listen() -> None:
        async with at_port(Display()) as url:
            found.append(int(url.rpartition(":")[2]))
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    ready.wait()
    yield found[0]
    over.set()
    thread.join()


def claims(**change: Any) -> dict[str, Any]:
    """What stands in a token for alice's session x-1."""
    return {"sub": "alice", "sid": "x-1", "run": 1, "aud": "display", "exp": now() + timedelta(minutes=1), **change}


def running(api: Api, port: int, **values: Any) -> None:
    """A session that runs."""
    api.put("x-1", status="running", node_ip="127.0.0.1", vnc_port=port, password="secret12", **values)


def token(api: Api, **change: Any) -> str:
    """A token that the service has signed."""
    return jwt.encode(claims(**change), api.service.database.installation().key, algorithm="HS256")


def refused(api: Api, *protocols: str) -> tuple[int, str]:
    """How the service closes a WebSocket."""
    with (
        pytest.raises(WebSocketDisconnect) as error,
        api.client.websocket_connect("/api/app/sessions/x-1/websockify", subprotocols=list(protocols)) as socket,
    ):
        socket.receive_bytes()
    return error.value.code, error.value.reason


def test_display_comes_through_both_ways(api: Api, port: int) -> None:
    running(api, port)
    way = api.ask("POST", "/api/app/sessions/x-1/connection")

    with api.client.websocket_connect(way["path"], subprotocols=way["protocols"]) as socket:
        assert socket.accepted_subprotocol == "binary"
        assert socket.receive_bytes() == b"RFB 003.008\n"
        socket.send_bytes(b"RFB 003.008\n")
        assert socket.receive_bytes() == b"\1\2"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"exp": now() - timedelta(seconds=1)}, 4401, "the token for this display has expired: open the session again"),
        ({"aud": "something"}, 4401, "this is no token for a display: open the session again"),
        ({"sid": "x-2"}, 4401, "the token is for another session: open this one again"),
        ({"run": 2}, 4401, "the session was restarted meanwhile: open it again"),
        ({"sub": "bob"}, 4404, "bob has no session x-1"),
    ],
)
def test_token_that_does_not_fit_is_refused_in_its_own_words(
    api: Api, port: int, change: dict[str, Any], code: int, said: str
) -> None:
    running(api, port)

    assert refused(api, "binary", token(api, **change)) == (code, said)


@pytest.mark.parametrize("protocols", [(), ("binary",), ("binary", "x"), ("base64", "TOKEN"), ("binary", "TOKEN", "x")])
def test_without_a_token_there_is_no_display(api: Api, port: int, protocols: tuple[str, ...]) -> None:
    running(api, port)
    given = [token(api) if one == "TOKEN" else one for one in protocols]

    assert refused(api, *given) == (4401, "this is no token for a display: open the session again")


def test_token_of_another_installation_is_refused(serve: Serve, port: int) -> None:
    api = serve()
    running(api, port)
    forged = jwt.encode(claims(), "k" * 64, algorithm="HS256")
    unsigned = jwt.encode(claims(), None, algorithm="none")

    for one in (forged, unsigned):
        assert refused(api, "binary", one)[0] == 4401


def test_connection_expires(serve: Serve, port: int) -> None:
    api = serve(APP_SESSIONS_CONNECTION_SECONDS=0.001)
    running(api, port)
    way = api.ask("POST", "/api/app/sessions/x-1/connection")

    assert refused(api, *way["protocols"])[0] == 4401


def test_display_that_is_away_is_told(api: Api) -> None:
    running(api, 1)

    code, said = refused(api, "binary", token(api))

    assert (code, said.startswith("the display does not answer: ")) == (4502, True), said


def test_session_that_does_not_run_is_told(api: Api, port: int) -> None:
    api.put("x-1", status="stopped", message="its job was cancelled")

    assert refused(api, "binary", token(api)) == (
        4409,
        "the session is stopped, it has no display now: its job was cancelled",
    )


def test_viewer_is_told_when_the_session_ends(api: Api, port: int) -> None:
    running(api, port)
    service = api.service

    async def end() -> None:
        row = await service.sessions._get("x-1")
        assert row is not None
        over = service.sessions._over["x-1"]
        await service.sessions._change(row, status="stopped", message="its job was cancelled")
        assert over.is_set(), "the viewer would wait for good"

    path = "/api/app/sessions/x-1/websockify"
    with api.client, api.client.websocket_connect(path, subprotocols=["binary", token(api)]) as socket:
        socket.receive_bytes()
        assert api.client.portal is not None
        api.client.portal.call(end)
        with pytest.raises(WebSocketDisconnect) as error:
            socket.receive_bytes()

    assert (error.value.code, error.value.reason) == (4410, "the session has ended")
    with service.database.read() as session:
        assert session.get_one(SessionRow, "x-1").status == "stopped"
