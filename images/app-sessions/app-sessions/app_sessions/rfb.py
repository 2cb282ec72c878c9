"""The display's own protocol as far as the service speaks it: version, security, the answer to a challenge.

RFC 6143, https://www.rfc-editor.org/rfc/rfc6143, sections 7.1 and 7.2.2; over a WebSocket, as websockify has it.
"""

from __future__ import annotations

import asyncio
import re

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from app_sessions.errors import AppSessionsError

#: The subprotocol that websockify and noVNC agree on.
BINARY = Subprotocol("binary")
_VERSION = re.compile(rb"RFB \d{3}\.\d{3}\n")
_OUR_VERSION = b"RFB 003.008\n"
_VNC_AUTHENTICATION = 2
#: For the other side to say that it closes, too.
_CLOSE_SECONDS = 2
#: More than any message of a handshake: a reason for a refusal.
_MOST = 4096


class NoDisplayError(AppSessionsError):
    """No display answers there, or it is none; the text says what did."""


class PasswordRefusedError(NoDisplayError):
    """A display answers, and refuses the password: it is not the session's own."""


def address(node_ip: str, port: int) -> str:
    """Where websockify is.

    Example:
        >>> address("10.0.0.7", 6080), address("fd00::7", 6080)
        ('ws://10.0.0.7:6080', 'ws://[fd00::7]:6080')
    """
    return f"ws://[{node_ip}]:{port}" if ":" in node_ip else f"ws://{node_ip}:{port}"


def open_display(url: str, seconds: float) -> connect:
    """A connection to websockify, as an asynchronous context manager; what it carries is compressed already.

    Args:
        url: as `address` has it.
        seconds: for the opening handshake.
    """
    # The nodes are reached directly, whatever proxy the environment names.
    return connect(
        f"{url}/websockify",
        subprotocols=[BINARY],
        compression=None,
        max_size=None,
        proxy=None,
        open_timeout=seconds,
        close_timeout=_CLOSE_SECONDS,
    )


async def shake_hands(url: str, password: str, *, seconds: float = 5) -> None:
    """Speak to a display until it has taken the password.

    Args:
        url: where websockify is, as `address` has it.
        password: of VNC authentication.
        seconds: for all of it.

    Raises:
        PasswordRefusedError: it refused the password.
        NoDisplayError: nothing answers there, or what answers is no display with VNC authentication.
    """
    try:
        async with asyncio.timeout(seconds), open_display(url, seconds) as connection:
            await _speak(_Stream(connection), password)
    except ConnectionClosed:
        raise NoDisplayError(f"{url} ended the connection: the display behind it does not answer") from None
    except (OSError, WebSocketException) as error:
        raise NoDisplayError(
            f"{url} does not answer as websockify does: {str(error) or type(error).__name__}"
        ) from None


async def _speak(stream: _Stream, password: str) -> None:
    said = await stream.read(12)
    if not _VERSION.fullmatch(said):
        raise NoDisplayError(f"what answers is no display: it said {said!r}, not RFB and a version")
    await stream.send(_OUR_VERSION)
    types = await stream.read((await stream.read(1))[0])
    if not types:
        raise NoDisplayError(f"the display refuses connections: {await stream.reason()}")
    if _VNC_AUTHENTICATION not in types:
        raise NoDisplayError("the display asks for no password, so it is not the session's own")
    await stream.send(bytes([_VNC_AUTHENTICATION]))
    await stream.send(answer(password, await stream.read(16)))
    if int.from_bytes(await stream.read(4), "big"):
        raise PasswordRefusedError(f"the display refuses the session's password: {await stream.reason()}")


def answer(password: str, challenge: bytes) -> bytes:
    """What VNC authentication wants to see: the challenge, encrypted by DES with the password as its key.

    The bits of each byte of the key are in reverse order, and three equal keys make DES of TripleDES.

    Example:
        >>> answer("password", bytes(16)).hex()
        'ff97502e9422f089ff97502e9422f089'
    """
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode("latin-1")[:8].ljust(8, b"\0"))
    encryptor = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305  # the protocol's own
    return encryptor.update(challenge) + encryptor.finalize()


class _Stream:
    """The bytes of a connection, whose messages may be cut anywhere."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._bytes = b""

    async def read(self, count: int) -> bytes:
        while len(self._bytes) < count:
            message = await self._connection.recv()
            self._bytes += message.encode() if isinstance(message, str) else message
        read, self._bytes = self._bytes[:count], self._bytes[count:]
        return read

    async def send(self, data: bytes) -> None:
        await self._connection.send(data)

    async def reason(self) -> str:
        length = int.from_bytes(await self.read(4), "big")
        return (await self.read(min(length, _MOST))).decode(errors="replace")
