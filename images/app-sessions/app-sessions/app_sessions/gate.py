"""Who may ask, and how much: logins by PAM, tokens, rates, the size of a body."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pwd
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import limits
import pamela
import sqlalchemy as sa
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy.orm import Session as DatabaseSession
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app_sessions.audit import Who, note, now
from app_sessions.database import Database
from app_sessions.errors import Refusal
from app_sessions.models import Login
from app_sessions.schema import SignedIn
from app_sessions.settings import Settings

#: The page's cookie.
COOKIE = "app_sessions"
#: Begins every token, so that one that got into a log or a repository is noticed by those who search for such.
PREFIX = "appsession_"
#: Wrong passwords of one address, and for one user, in a minute; further ones are not even tried.
WRONG_PER_MINUTE = 20
#: How many passwords PAM is asked about at a time.
_PAM_AT_ONCE = 4
#: System accounts are below: login.defs(5), UID_MIN.
_FIRST_PERSON = 1000
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURITY_HEADERS = (
    (
        b"content-security-policy",
        # noVNC shows the pointer of the display as an image of its own.
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True)
class Caller:
    """Who asks: a user, from where, whether an administrator; by which login, and until when it is good."""

    user: str
    address: str
    admin: bool
    login: str
    expires_at: datetime


class Gate:
    """Lets users in.

    Args:
        settings: what the service was told.
        database: where the logins are.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = limits.RateLimitItemPerMinute(settings.requests_per_minute)
        self._wrong = limits.RateLimitItemPerMinute(WRONG_PER_MINUTE)
        #: Passwords of which PAM has not said yet whether they are wrong.
        self._asked: Counter[tuple[str, str]] = Counter()
        # Not asyncio's own, which the database needs: PAM is slow on purpose.
        self._pam = ThreadPoolExecutor(_PAM_AT_ONCE, thread_name_prefix="pam")

    async def sign_in(self, user: str, password: str, address: str) -> SignedIn:
        """Ask PAM, and make a token that stands for the user from now on.

        Raises:
            Refusal: 401 for a wrong name or password, 403 for a system account, 429 for too many wrong ones.
        """
        both = (("address", address), ("user", user))
        for who in both:
            # Many that come at once may all be wrong.
            if self._limiter.get_window_stats(self._wrong, "wrong", *who).remaining <= self._asked[who]:
                raise self._too_many(self._wrong, "wrong passwords", "wrong", *who)
        self._asked.update(both)
        try:
            why = await asyncio.get_running_loop().run_in_executor(
                self._pam, _ask_pam, user, password, self._settings.pam_service
            )
            if why is not None:
                for who in both:
                    self._limiter.hit(self._wrong, "wrong", *who)
        finally:
            self._asked.subtract(both)
            self._asked += Counter()  # forgets those of 0
        if why is not None:
            await self._database.writing(
                lambda session: note(session, Who(user[:64], address), "login-refused", None, {"why": why.code})
            )
            raise why
        token = PREFIX + secrets.token_urlsafe(32)
        expires_at = now() + timedelta(seconds=self._settings.login_seconds)

        def keep(session: DatabaseSession) -> None:
            session.add(Login(sha256=_digest(token), user=user, expires_at=expires_at))
            note(session, Who(user, address), "login")

        await self._database.writing(keep)
        return SignedIn(user=user, admin=user in self._settings.admins, token=token, expires_at=expires_at)

    async def sign_out(self, connection: HTTPConnection) -> str:
        """Forget the token that a request came with, and return its login; nothing where it came with none."""
        token = self._token(connection)
        if not token:
            return ""
        login = _digest(token)
        forget = sa.delete(Login).where(Login.sha256 == login)
        await self._database.writing(lambda session: session.execute(forget))
        return login

    async def admit(self, connection: HTTPConnection, *, admin: bool = False) -> Caller:
        """Say who asks.

        Raises:
            Refusal: 401 for no, a wrong or an expired token, 403 for a page of another site and for what only
                administrators may, 429 for too many requests.
        """
        token = self._token(connection)
        if not token:
            raise Refusal(
                401,
                "token_missing",
                "log in: POST /api/login answers a token, to be sent as Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )
        login = await self._database.reading(lambda session: session.get(Login, _digest(token)))
        if login is None:
            raise Refusal(401, "token_unknown", "this token is not known: log in again", {"WWW-Authenticate": "Bearer"})
        if login.expires_at <= now():
            raise Refusal(401, "token_expired", "the login has expired: log in again", {"WWW-Authenticate": "Bearer"})
        admins = self._settings.admins
        caller = Caller(login.user, address_of(connection), login.user in admins, login.sha256, login.expires_at)
        if not self._limiter.hit(self._rate, "user", caller.user, caller.address):
            raise self._too_many(self._rate, "requests", "user", caller.user, caller.address)
        if admin and not caller.admin:
            raise Refusal(403, "admin_only", f"{caller.user} is no administrator of app-sessions")
        return caller

    def _token(self, connection: HTTPConnection) -> str:
        scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
        if scheme:
            return secret.strip() if scheme.lower() == "bearer" else ""
        cookie = connection.cookies.get(COOKIE, "")
        # A page of somebody else's must not act with this browser's cookie.
        if cookie and not (connection.scope["type"] == "http" and connection.scope["method"] in _SAFE):
            self.check_origin(connection)
        return cookie

    def check_origin(self, connection: HTTPConnection) -> None:
        """Refuse what a page of another site asks for.

        Raises:
            Refusal: 403.
        """
        origin = connection.headers.get("origin", "")
        host = connection.headers.get("host", "")
        if origin not in {f"http://{host}", f"https://{host}", *self._settings.origins}:
            raise Refusal(
                403,
                "origin_foreign",
                f"the page of {origin or 'nowhere'} may not ask here; where a proxy changes Host: APP_SESSIONS_ORIGINS",
            )

    def _too_many(self, rate: limits.RateLimitItem, what: str, *who: str) -> Refusal:
        reset, _ = self._limiter.get_window_stats(rate, *who)
        seconds = max(1, int(reset - time.time()) + 1)
        return Refusal(
            429,
            "too_many_requests",
            f"more than {rate.amount} {what} in a minute: try again in {seconds} s",
            {"Retry-After": str(seconds)},
        )


def _ask_pam(user: str, password: str, service: str) -> Refusal | None:
    try:
        pamela.authenticate(user, password, service=service)
        pamela.check_account(user, service=service)
    except pamela.PAMError:
        # PAM's own words would tell whether there is such a user.
        return Refusal(401, "login_refused", "wrong user name or password")
    if _uid(user) < _FIRST_PERSON:
        return Refusal(403, "system_account", f"{user} is a system account: sessions are for persons")
    return None


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def address_of(connection: HTTPConnection) -> str:
    """Where a request came from."""
    return connection.client.host if connection.client else ""


def _digest(token: str) -> str:
    """What is kept of a token: it has 256 random bits, so that a plain digest cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()


class BodyLimit:
    """Refuses a body that is too large as soon as so much of it has come; a length that was told proves nothing.

    Args:
        app: what the request is for.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = 0
        refused = False

        async def limited() -> Message:
            nonlocal read, refused
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                refused = True
                raise _TooLargeError
            return message

        async def quiet(message: Message) -> None:
            if not refused:
                await send(message)

        # The framework may have made an answer of its own of it.
        with contextlib.suppress(_TooLargeError):
            await self._app(scope, limited, quiet)
        if refused:
            refusal = Refusal(413, "body_too_large", f"a body has at most {self._most} bytes")
            # The rest of the body is not read: the connection ends.
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
            await send({"type": "http.response.body", "body": refusal.body()})


class SecurityHeaders:
    """Says in every answer that a browser may load nothing from elsewhere, frame nothing, and tell nobody.

    Args:
        app: what the request is for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SECURITY_HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers)


class _TooLargeError(Exception):
    pass
