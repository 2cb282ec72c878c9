"""What changes is told at once to those who listen: each to their own sessions, administrators to all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Told = dict[str, Any]
#: Who does not read for so many messages is sent away, and asks anew.
_WAITING = 1000


@dataclass(eq=False)
class Listener:
    """One who listens.

    Attributes:
        user: whose sessions.
        everybody: whether those of all users.
        login: by what the user was let in.
        messages: what has happened; None is the end.
        signed_out: set when the login has ended.
    """

    user: str
    everybody: bool
    login: str
    messages: asyncio.Queue[Told | None] = field(default_factory=lambda: asyncio.Queue(_WAITING))
    signed_out: asyncio.Event = field(default_factory=asyncio.Event)


class Events:
    """Tells listeners what changes.

    Example:
        >>> events = Events()
        >>> with events.listen("alice") as listener:
        ...     events.tell({"type": "deleted", "id": "7"}, "alice")
        ...     listener.messages.get_nowait()
        {'type': 'deleted', 'id': '7'}
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    @contextlib.contextmanager
    def listen(self, user: str, *, everybody: bool = False, login: str = "") -> Iterator[Listener]:
        """Listen for as long as the context lasts."""
        listener = Listener(user, everybody, login)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def tell(self, message: Told, owner: str | None = None) -> None:
        """Tell those whom it concerns; everybody where it is no one user's matter."""
        for listener in list(self._listeners):
            if owner is None or listener.everybody or listener.user == owner:
                try:
                    listener.messages.put_nowait(message)
                except asyncio.QueueFull:
                    self._end(listener)

    def sign_out(self, login: str) -> None:
        """End those whom a login has let in."""
        for listener in self._listeners:
            if listener.login == login:
                listener.signed_out.set()

    def close(self) -> None:
        """End all, as the service ends."""
        for listener in list(self._listeners):
            self._end(listener)

    def _end(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        while listener.messages.full():
            listener.messages.get_nowait()
        listener.messages.put_nowait(None)
