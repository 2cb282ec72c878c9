"""Displays for tests: websockify's end of a WebSocket, and RFB behind it as far as a handshake goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from app_sessions.rfb import BINARY, answer
from websockets.asyncio.server import ServerConnection, serve

Speak = Callable[[ServerConnection], Awaitable[None]]


class Display:
    """A display with VNC authentication; after it, what comes is sent back.

    Args:
        password: that it takes.
        banner: what it says first.
        types: the security types that it offers.
        piece: how many bytes a message has at most: a stream knows no messages.
    """

    def __init__(
        self, password: str = "secret12", banner: bytes = b"RFB 003.008\n", types: bytes = b"\2", piece: int = 1000
    ) -> None:
        self._password, self._banner, self._types, self._piece = password, banner, types, piece
        self.served = 0

    async def __call__(self, connection: ServerConnection) -> None:
        self.served += 1
        await self._send(connection, self._banner)
        await self._read(connection, 12)
        await self._send(connection, bytes([len(self._types)]) + self._types)
        if not self._types:
            await self._send(connection, _text("too many security failures"))
            return
        await self._read(connection, 1)
        challenge = os.urandom(16)
        await self._send(connection, challenge)
        if await self._read(connection, 16) != answer(self._password, challenge):
            await self._send(connection, (1).to_bytes(4, "big") + _text("Authentication failed"))
            return
        await self._send(connection, bytes(4))
        async for message in connection:
            await connection.send(message)

    async def _send(self, connection: ServerConnection, data: bytes) -> None:
        for start in range(0, len(data), self._piece):
            await connection.send(data[start : start + self._piece])

    async def _read(self, connection: ServerConnection, count: int) -> bytes:
        read = b""
        while len(read) < count:
            message = await connection.recv()
            assert isinstance(message, bytes)
            read += message
        return read


def _text(text: str) -> bytes:
    return len(text).to_bytes(4, "big") + text.encode()


@contextlib.asynccontextmanager
async def at_port(speak: Speak) -> AsyncIterator[str]:
    """The address of a display that listens on a port of this machine."""
    async with serve(speak, "127.0.0.1", 0, subprotocols=[BINARY]) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


async def silent(connection: ServerConnection) -> None:
    """Takes connections, and says nothing."""
    await connection.wait_closed()


async def hangs_up(connection: ServerConnection) -> None:
    """What websockify does while there is no display behind it yet."""
    await connection.close()
