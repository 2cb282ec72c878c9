"""The handshake with a display: running is said only after it, so what is no display must never pass."""

from __future__ import annotations

import asyncio

import pytest
from app_sessions.rfb import NoDisplayError, PasswordRefusedError, answer, shake_hands

from tests.unit.app_sessions.displays import Display, Speak, at_port, hangs_up, silent


def shake(speak: Speak, password: str = "secret12", seconds: float = 20) -> None:
    """Shake hands with a display."""

    async def within() -> None:
        async with at_port(speak) as url:
            await shake_hands(url, password, seconds=seconds)

    asyncio.run(within())


@pytest.mark.row("V-06.1")
@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("types", [b"\2", b"\1\2\x10"])
def test_display_that_takes_the_password_passes(piece: int, types: bytes) -> None:
    display = Display(piece=piece, types=types)

    shake(display)

    assert display.served == 1


@pytest.mark.row("V-06.4")
def test_display_that_refuses_the_password_is_somebody_elses() -> None:
    with pytest.raises(PasswordRefusedError, match="refuses the session's password: Authentication failed"):
        shake(Display(password="other123"))


@pytest.mark.row("V-06.1")
@pytest.mark.parametrize(
    ("speak", "said"),
    [
        (Display(banner=b"SSH-2.0-OpenS"), "is no display: it said b'SSH-2.0-Open'"),
        (Display(types=b"\1"), "asks for no password"),
        (Display(types=b""), "refuses connections: too many security failures"),
        (hangs_up, "ended the connection"),
    ],
)
def test_what_is_no_display_of_ours_does_not_pass(speak: Speak, said: str) -> None:
    with pytest.raises(NoDisplayError, match=said):
        shake(speak)


def test_display_that_says_nothing_is_not_waited_for() -> None:
    with pytest.raises(NoDisplayError, match="does not answer as websockify does: TimeoutError"):
        shake(silent, seconds=0.2)


def test_port_where_nobody_listens_does_not_pass() -> None:
    with pytest.raises(NoDisplayError, match="does not answer as websockify does"):
        asyncio.run(shake_hands("ws://127.0.0.1:1", "secret12"))


def test_answer_is_that_of_vnc_authentication() -> None:
    # DES of an all-zero block with an all-zero key is a published vector.
    assert answer("", bytes(16)).hex() == "8ca64de9c1b123a7" * 2
    assert answer("secret12", bytes(16)) == answer("secret12 and more", bytes(16))
