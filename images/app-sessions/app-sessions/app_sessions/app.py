"""The HTTP API, and the page beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from app_sessions import __version__, proxy, schema
from app_sessions.applications import Applications
from app_sessions.audit import now
from app_sessions.database import Database, DatabaseError
from app_sessions.errors import Refusal
from app_sessions.events import Listener
from app_sessions.gate import COOKIE, BodyLimit, Caller, Gate, SecurityHeaders, address_of
from app_sessions.models import Audit
from app_sessions.sessions import AppSessionService
from app_sessions.settings import Settings
from app_sessions.slurm.jobs import Slurm

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
#: Where Debian's package has noVNC.
NOVNC = Path("/usr/share/novnc")
#: Codes of refusals that the framework makes by itself.
_CODES = {404: "not_found", 405: "method_not_allowed", 400: "malformed"}


@dataclass
class Service:
    """The parts of a running service.

    Attributes:
        settings: what it was told.
        database: where it keeps things; its schema is up to date.
        applications: what can be started.
        slurm: how Slurm is spoken to.
        sessions: the sessions.
        gate: who may ask.
    """

    settings: Settings
    database: Database
    applications: Applications
    slurm: Slurm
    sessions: AppSessionService = field(init=False)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = AppSessionService(self.settings, self.database, self.applications, self.slurm)
        self.gate = Gate(self.settings, self.database)


def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


Of = Annotated[Service, Depends(_service)]


async def _caller(request: Request, service: Of) -> Caller:
    return await service.gate.admit(request)


async def _administrator(request: Request, service: Of) -> Caller:
    return await service.gate.admit(request, admin=True)


By = Annotated[Caller, Depends(_caller)]
ByAdmin = Annotated[Caller, Depends(_administrator)]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.Error, "description": text}
    for status, text in {
        401: "no token, a wrong or an expired one",
        403: "not for this user",
        413: "a body that is too large",
        422: "a value that does not fit",
        429: "too many requests; Retry-After says when",
        503: "the database is away",
    }.items()
}
_of_session: dict[int | str, dict[str, Any]] = {404: {"model": schema.Error, "description": "no such session"}}
_conflict: dict[int | str, dict[str, Any]] = {409: {"model": schema.Error, "description": "not now; the text says why"}}
_bearer = [Depends(HTTPBearer(auto_error=False, description="the token of POST /api/login"))]
users = APIRouter(prefix="/api", dependencies=_bearer, responses=_REFUSALS, tags=["users"])
admins = APIRouter(prefix="/api", dependencies=_bearer, responses=_REFUSALS, tags=["administrators"])
anybody = APIRouter(tags=["anybody"])
# HTTPBearer, by which the document tells of tokens, knows no WebSockets.
sockets = APIRouter(prefix="/api/app")


@anybody.post("/api/login", responses={401: _REFUSALS[401], 429: _REFUSALS[429]})
async def log_in(request: Request, body: schema.SignIn, response: Response, service: Of) -> schema.SignedIn:
    """Log in by PAM; the token is for programs, the cookie for the page."""
    signed = await service.gate.sign_in(body.username, body.password, address_of(request))
    response.set_cookie(
        COOKIE,
        signed.token,
        max_age=service.settings.login_seconds,
        httponly=True,
        samesite="strict",
        secure=service.settings.tls_cert_file is not None or request.url.scheme == "https",
    )
    return signed


@anybody.delete("/api/login", status_code=204)
async def log_out(request: Request, service: Of) -> Response:
    """Log out: the token is worth nothing any more."""
    service.sessions.events.sign_out(await service.gate.sign_out(request))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


@users.get("/user")
async def show_user(service: Of, caller: By) -> schema.User:
    """Say who asks, and what the quotas leave."""
    return schema.User(
        user=caller.user,
        admin=caller.admin,
        sessions_per_user=service.settings.sessions_per_user,
        sessions_left=await service.sessions.sessions_left(caller.user),
    )


@users.get("/app/applications")
async def list_applications(service: Of, caller: By) -> schema.Applications:
    """List the applications that the caller may start."""
    found = await asyncio.to_thread(service.applications.of, caller.user)
    return schema.Applications(
        applications=[
            schema.ApplicationItem(
                id=app.id,
                title=app.title,
                description=app.description,
                geometry=app.geometry,
                partition=app.partition,
                cpus=app.cpus_per_task,
                memory=app.memory,
                time=app.time,
            )
            for app in found
        ]
    )


@users.post("/app/sessions", status_code=201, responses={**_of_session, **_conflict})
async def create_session(service: Of, caller: By, body: schema.NewSession) -> schema.Session:
    """Start an application: answers at once, while Slurm is still to be asked."""
    return await service.sessions.create_session(caller.user, body.app_id, caller.address)


@users.get("/app/sessions")
async def list_sessions(
    service: Of,
    caller: By,
    everybody: Annotated[bool, Query(description="those of all users, for administrators")] = False,
) -> schema.Sessions:
    """List the caller's sessions, newest first."""
    if everybody and not caller.admin:
        raise Refusal(403, "admin_only", f"{caller.user} is no administrator of app-sessions")
    return schema.Sessions(sessions=await service.sessions.list_sessions(caller.user, everybody=everybody))


@users.get("/app/sessions/{session_id}", responses=_of_session)
async def show_session(session_id: str, service: Of, caller: By) -> schema.Session:
    """Show a session."""
    return await service.sessions.get_session(session_id, caller.user, admin=caller.admin)


@users.delete(
    "/app/sessions/{session_id}",
    status_code=204,
    response_class=Response,
    responses={**_of_session, 202: {"model": schema.Session, "description": "its job is still being ended"}},
)
async def delete_session(session_id: str, service: Of, caller: By) -> Response:
    """End a session: 204 once its job is gone and it is forgotten."""
    left = await service.sessions.delete_session(session_id, caller.user, admin=caller.admin, address=caller.address)
    if left is None:
        return Response(status_code=204)
    return Response(left.model_dump_json(), status_code=202, media_type="application/json")


@users.post("/app/sessions/{session_id}/restart", responses={**_of_session, **_conflict})
async def restart_session(session_id: str, service: Of, caller: By) -> schema.Session:
    """End a session's job where it has one, and start it anew."""
    return await service.sessions.restart_session(session_id, caller.user, address=caller.address)


@users.post("/app/sessions/{session_id}/connection", responses={**_of_session, **_conflict})
async def open_connection(session_id: str, response: Response, service: Of, caller: By) -> schema.Connection:
    """What a viewer of the owner's needs: a token for a short time, and the display's password."""
    response.headers["Cache-Control"] = "no-store"
    return await service.sessions.connection(session_id, caller.user, caller.address)


@sockets.websocket("/sessions/{session_id}/websockify")
async def display(browser: WebSocket, session_id: str, service: Of) -> None:
    """Carry the display to noVNC: subprotocols `binary` and the token of a connection."""
    try:
        url, over = await service.sessions.display(session_id, proxy.token_of(browser))
    except Refusal as refusal:
        await proxy.refuse(browser, refusal)
        return
    await proxy.pass_through(browser, url, over)


@sockets.websocket("/events")
async def listen(browser: WebSocket, service: Of, everybody: bool = False) -> None:
    """Tell what changes: first `sessions` with all of them and `slurm`, then `session`, `deleted` and `slurm`."""
    try:
        caller = await service.gate.admit(browser, admin=everybody)
    except Refusal as refusal:
        await proxy.refuse(browser, refusal)
        return
    with service.sessions.events.listen(caller.user, everybody=everybody, login=caller.login) as listener:
        await browser.accept()
        found = await service.sessions.list_sessions(caller.user, everybody=everybody)
        told = schema.Sessions(sessions=found).model_dump(mode="json")
        left = (caller.expires_at - now()).total_seconds()
        await _tell(browser, service, listener, {"type": "sessions", **told}, left)


async def _tell(
    browser: WebSocket, service: Service, listener: Listener, first: dict[str, Any], seconds: float
) -> None:
    async def tell() -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await browser.send_json(first)
            await browser.send_json(service.sessions.slurm_told())
            while (message := await listener.messages.get()) is not None:
                await browser.send_json(message)

    async def hear() -> None:
        # Nothing is expected, but the end.
        while (await browser.receive())["type"] != "websocket.disconnect":
            pass

    async def expire() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await listener.signed_out.wait()
        listener.signed_out.set()

    await proxy.first_of(tell(), hear(), expire())
    if listener.signed_out.is_set():
        await proxy.close(browser, proxy.CLOSED + 401, "the login has ended: log in again")
    else:
        await proxy.close(browser, 1001, "the service ends, or too much was not read: connect again")


@admins.get("/app/audit")
async def list_audit(
    service: Of,
    _: ByAdmin,
    session_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> schema.AuditLog:
    """List who did what, newest first."""

    def select(session: sa.orm.Session) -> schema.AuditLog:
        which = sa.true() if session_id is None else Audit.session_id == session_id
        total = session.scalar(sa.select(sa.func.count()).select_from(Audit).where(which)) or 0
        rows = session.scalars(sa.select(Audit).where(which).order_by(Audit.id.desc()).limit(limit).offset(offset))
        entries = [schema.AuditItem.model_validate(row, from_attributes=True) for row in rows]
        return schema.AuditLog(total=total, limit=limit, offset=offset, entries=entries)

    return await service.database.reading(select)


@anybody.get("/api/app/health", responses={503: {"model": schema.Health}})
async def health(response: Response, service: Of) -> schema.Health:
    """Say how the service is; no names, for anybody may ask."""
    database = schema.Part(kind="SQLite" if service.database.is_sqlite else "PostgreSQL", ok=True)
    live: int | None = None
    try:
        await asyncio.to_thread(service.database.check)
        live = await service.sessions.live_sessions()
    except (DatabaseError, sa.exc.SQLAlchemyError):
        database.ok, database.message, response.status_code = False, "it does not answer: see the service's log", 503
    trouble = service.sessions.looks.trouble
    slurm = schema.Part(kind=service.settings.submit, ok=None if trouble is None else not trouble)
    slurm.message = "it does not answer: see the service's log" if trouble else ""
    status = "down" if not database.ok else "degraded" if trouble else "ok"
    return schema.Health.model_validate(
        {"status": status, "version": __version__, "database": database, "slurm": slurm, "live_sessions": live}
    )


@anybody.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


def create_app(service: Service) -> FastAPI:
    """Make the application.

    Args:
        service: its parts.

    Example:
        >>> create_app(service).title  # doctest: +SKIP
        'Application sessions'
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with app.state.service.sessions.running():
            yield

    app = FastAPI(
        title="Application sessions",
        version=__version__,
        description="Desktop applications as Slurm jobs. Every refusal is `{error: {code, message}}`.",
        # Their pages load scripts from elsewhere; a cluster may have no way there.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    for router in (users, admins, anybody, sockets):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.mount("/novnc", StaticFiles(directory=NOVNC, check_dir=False), name="novnc")
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _refused_by_framework)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(sa.exc.SQLAlchemyError, _database_failed)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(BodyLimit, most=service.settings.body_bytes)
    app.add_middleware(SecurityHeaders)
    return app


def _answer(refusal: Refusal) -> Response:
    return Response(refusal.body(), status_code=refusal.status, headers=refusal.headers, media_type="application/json")


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(error)


def _refused_by_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "refused")
    message = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} knows no {request.method}",
    }.get(error.status_code, str(error.detail))
    return _answer(Refusal(error.status_code, code, message, error.headers))


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _answer(Refusal(422, "invalid_request", f"{where}: {str(first['msg']).removeprefix('Value error, ')}"))


def _database_failed(_: Request, error: Exception) -> Response:
    log.error("the database failed: %s", error)
    return _answer(
        Refusal(503, "database_unavailable", "the database is away, or refused; send it again", {"Retry-After": "5"})
    )


def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(Refusal(500, "internal_error", "the service failed here; its log says why"))
