"""Who may ask, and how much: tokens, sessions of the dashboard, rates, the size of a body."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass

import limits
from fastapi import Request
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slurm_observability.service.audit import Who
from slurm_observability.service.errors import Refusal
from slurm_observability.service.tokens import Role, Token, TokenError, Tokens

#: The dashboard's cookie.
COOKIE = "slurm_observability"
#: Seconds that a dashboard stays signed in without a request.
SESSION_SECONDS = 12 * 3600
_SECURITY_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
#: Wrong tokens of one address in a minute; further requests from there wait.
WRONG_TOKENS_PER_MINUTE = 30


@dataclass(frozen=True)
class Caller:
    """Who asks: a token, and from where."""

    token: Token
    address: str

    @property
    def who(self) -> Who:
        """As the audit has it."""
        return Who(self.token.name, self.address)


class Sessions:
    """Dashboards that are signed in: a random cookie stands for a token, which the browser does not keep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float]] = {}

    def open(self, token: Token) -> str:
        """Sign a dashboard in; returns the cookie's value."""
        value = secrets.token_urlsafe(32)
        with self._lock:
            at = time.monotonic()
            self._known = {key: entry for key, entry in self._known.items() if at - entry[1] < SESSION_SECONDS}
            self._known[_digest(value)] = (token.sha256, at)
        return value

    def find(self, value: str, tokens: list[Token]) -> Token | None:
        """The token of a cookie; none once that is revoked."""
        key = _digest(value)
        with self._lock:
            sha256, at = self._known.get(key, ("", 0.0))
            if not sha256 or time.monotonic() - at >= SESSION_SECONDS:
                return None
            self._known[key] = (sha256, time.monotonic())
        return next((token for token in tokens if token.sha256 == sha256), None)

    def close(self, value: str) -> None:
        """Sign a dashboard out."""
        with self._lock:
            self._known.pop(_digest(value), None)


class Gate:
    """Lets callers in.

    Args:
        tokens: who they may be.
        requests_per_minute: of one token from one address.
    """

    def __init__(self, tokens: Tokens, requests_per_minute: int) -> None:
        self.tokens, self.sessions = tokens, Sessions()
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = limits.RateLimitItemPerMinute(requests_per_minute)
        self._wrong = limits.RateLimitItemPerMinute(WRONG_TOKENS_PER_MINUTE)

    def admit(self, request: Request, role: Role) -> Caller:
        """Say who asks.

        Raises:
            Refusal: 401 for no or a wrong token, 403 for one of another role, 429 for too many requests.
        """
        caller = self.identify(request)
        if caller is None:
            raise Refusal(
                401,
                "token_missing",
                "send a token: Authorization: Bearer TOKEN; make one with: slurm-observability token create",
                {"WWW-Authenticate": "Bearer"},
            )
        if not caller.token.role.may(role):
            raise Refusal(
                403,
                "role_insufficient",
                f"the token {caller.token.name} is of the role {caller.token.role}; this needs {role}",
            )
        return caller

    def identify(self, request: Request) -> Caller | None:
        """Say who asks; None for nobody.

        Raises:
            Refusal: 401 for a wrong token, 429 for too many requests.
        """
        address = request.client.host if request.client else ""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        cookie = request.cookies.get(COOKIE)
        token: Token | None
        try:
            if scheme:
                token = self._known(address, secret.strip() if scheme.lower() == "bearer" else "")
            elif cookie and request.method == "GET":
                # A page of somebody else's must not make this browser change anything.
                token = self.sessions.find(cookie, self.tokens.all())
            else:
                return None
        except TokenError as error:
            raise Refusal(503, "tokens_unreadable", str(error)) from error
        if token is None:
            return None
        if not self._limiter.hit(self._rate, "token", token.name, address):
            raise self._too_many(self._rate, "token", token.name, address)
        return Caller(token, address)

    def _known(self, address: str, secret: str) -> Token:
        token = self.tokens.find(secret)
        if token is None:
            # A right one is let in all the same: a node's jobs, or a proxy's clients, share one address with it.
            if not self._limiter.hit(self._wrong, "wrong", address):
                raise self._too_many(self._wrong, "wrong", address)
            raise Refusal(
                401, "token_unknown", "this token is not known, or was revoked", {"WWW-Authenticate": "Bearer"}
            )
        return token

    def sign_in(self, request: Request, secret: str) -> str:
        """Sign a dashboard in with a token that may read; returns the cookie's value.

        Raises:
            Refusal: as for `admit`.
        """
        address = request.client.host if request.client else ""
        try:
            token = self._known(address, secret)
        except TokenError as error:
            raise Refusal(503, "tokens_unreadable", str(error)) from error
        if not token.role.may(Role.READER):
            raise Refusal(403, "role_insufficient", f"the token {token.name} may not read; use one of the role reader")
        return self.sessions.open(token)

    def _too_many(self, rate: limits.RateLimitItem, *who: str) -> Refusal:
        reset, _ = self._limiter.get_window_stats(rate, *who)
        seconds = max(1, int(reset - time.time()) + 1)
        what = "wrong tokens" if rate is self._wrong else "requests"
        return Refusal(
            429, "too_many_requests", f"more than {rate.amount} {what} in a minute", {"Retry-After": str(seconds)}
        )


class BodyLimit:
    """Refuses a body that is too large as soon as so much of it has come; a length that was told proves nothing.

    Args:
        app: what the request is for; its service's settings say how large.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most: int = scope["app"].state.service.settings.body_bytes
        read = 0
        refused = False

        async def limited() -> Message:
            nonlocal read, refused
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
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
            await self._refuse(send, most)

    async def _refuse(self, send: Send, most: int) -> None:
        refusal = Refusal(413, "body_too_large", f"a body has at most {most} bytes")
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


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
