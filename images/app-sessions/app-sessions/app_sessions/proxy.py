"""The way of a display to the browser: what noVNC sends goes to websockify on the node, and back.

Browsers show a WebSocket's refusal to nobody, so a refused one is accepted, and closed with a code and a text.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from app_sessions.errors import Refusal
from app_sessions.rfb import BINARY, open_display

#: Codes of our own, by the HTTP status that says the same: https://www.rfc-editor.org/rfc/rfc6455#section-7.4.2
CLOSED = 4000
#: The session has ended while it was looked at, and its node cannot be reached.
ENDED, UNREACHABLE = 4410, 4502
#: Bytes that the text of a closing may have: RFC 6455, section 5.5.
_LONGEST = 123
_CONNECT_SECONDS = 10


async def refuse(browser: WebSocket, refusal: Refusal) -> None:
    """Tell a browser why it gets no connection."""
    await browser.accept(_offered(browser))
    await close(browser, CLOSED + refusal.status, refusal.message)


async def close(browser: WebSocket, code: int, text: str) -> None:
    """Close a connection with a text for people."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await browser.close(code, text.encode()[:_LONGEST].decode(errors="ignore"))


def token_of(browser: WebSocket) -> str:
    """The token that stands behind `binary` among the subprotocols, where no log and no address shows it."""
    offered = browser.scope.get("subprotocols") or []
    return offered[1] if len(offered) == 2 and offered[0] == BINARY else ""


def _offered(browser: WebSocket) -> str | None:
    return BINARY if BINARY in (browser.scope.get("subprotocols") or []) else None


async def pass_through(browser: WebSocket, url: str, over: asyncio.Event) -> None:
    """Carry a display to a browser until either side ends, or the session does.

    Args:
        browser: not accepted yet.
        url: where websockify is.
        over: set when the session ends.
    """
    try:
        async with open_display(url, _CONNECT_SECONDS) as display:
            await browser.accept(BINARY)
            await first_of(over.wait(), _to_display(browser, display), _to_browser(display, browser))
            if over.is_set():
                await close(browser, ENDED, "the session has ended")
            else:
                await close(browser, 1000, "the display ended the connection")
    except (OSError, WebSocketException) as error:
        unreachable = Refusal(
            502, "node_unreachable", f"the display does not answer: {str(error) or type(error).__name__}"
        )
        await refuse(browser, unreachable)


async def first_of(*work: Coroutine[Any, Any, Any]) -> None:
    """Do several things at once until the first of them ends; the others are cancelled, as all are with the caller."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _to_display(browser: WebSocket, display: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while (message := await browser.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            await display.send(message["text"].encode() if data is None else data)


async def _to_browser(display: ClientConnection, browser: WebSocket) -> None:
    with contextlib.suppress(ConnectionClosed, RuntimeError, WebSocketDisconnect):
        async for message in display:
            await browser.send_bytes(message.encode() if isinstance(message, str) else message)
