"""The HTTP API: https, JSON, tokens; the dashboard's page beside it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import AwareDatetime, StringConstraints
from starlette.exceptions import HTTPException

from slurm_observability import __version__
from slurm_observability.schema import (
    IDEMPOTENCY_KEY,
    KEY_PATTERN,
    Error,
    EventAnswer,
    JobFinished,
    JobStarted,
    JobState,
    Message,
    Name,
    NodeSample,
    Reports,
    ReportsAnswer,
    SampleAnswer,
)
from slurm_observability.service import answers, ledger, queries, samples
from slurm_observability.service.audit import now
from slurm_observability.service.board import Board
from slurm_observability.service.database import Database, DatabaseError
from slurm_observability.service.errors import Refusal
from slurm_observability.service.gate import COOKIE, SESSION_SECONDS, BodyLimit, Caller, Gate, SecurityHeaders
from slurm_observability.service.metrics import CONTENT_TYPE, Metrics
from slurm_observability.service.models import Run
from slurm_observability.service.settings import Settings
from slurm_observability.service.tokens import Role, Tokens

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
#: Codes of refusals that the framework makes by itself.
_CODES = {404: "not_found", 405: "method_not_allowed", 400: "malformed"}
Made = TypeVar("Made")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass
class Service:
    """The parts of a running service.

    Attributes:
        settings: what it was told.
        database: where it keeps things; its schema is up to date.
        board: what is true now.
        gate: who may ask.
        metrics: what Prometheus scrapes.
        scheduler: how slurmrestd was found last.
        nudge: called when a run has ended, so that Slurm is asked soon.
        on_start, on_stop: called when the application starts and ends.
    """

    settings: Settings
    database: Database
    board: Board = field(default_factory=Board)
    gate: Gate = field(init=False)
    metrics: Metrics = field(init=False)
    scheduler: Callable[[], answers.Scheduler] = field(init=False)
    nudge: Callable[[], None] = field(default=lambda: None)
    on_start: Callable[[], None] = field(default=lambda: None)
    on_stop: Callable[[], None] = field(default=lambda: None)

    def __post_init__(self) -> None:
        self.gate = Gate(Tokens(self.settings.tokens_file), self.settings.requests_per_minute)
        self.metrics = Metrics(self.board)
        self.scheduler = lambda: answers.Scheduler(backend="none")


class SignIn(Message):
    """How a dashboard signs in."""

    token: Annotated[str, StringConstraints(max_length=1024, strip_whitespace=True)]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Of = Annotated[Service, Depends(_service)]
By = Annotated[Caller, Depends(_caller)]


class _Guarded(APIRoute):
    """Asks who calls before the body is read."""

    role = Role.ADMIN

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request.state.caller = _service(request).gate.admit(request, self.role)
            return await handler(request)

        return guarded


class _ForAgents(_Guarded):
    role = Role.AGENT


class _ForReaders(_Guarded):
    role = Role.READER


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        401: "no token, or a wrong one",
        403: "a token of another role",
        413: "a body that is too large",
        422: "a value that does not fit",
        429: "too many requests; Retry-After says when",
        503: "the database is away",
    }.items()
}
_bearer = [Depends(HTTPBearer(auto_error=False, description="a token of the service"))]
_of_job: dict[int | str, dict[str, Any]] = {404: {"model": Error, "description": "no such job"}}
agents = APIRouter(route_class=_ForAgents, dependencies=_bearer, responses=_REFUSALS, tags=["agents"])
readers = APIRouter(route_class=_ForReaders, dependencies=_bearer, responses=_REFUSALS, tags=["readers"])
admins = APIRouter(route_class=_Guarded, dependencies=_bearer, responses=_REFUSALS, tags=["admins"])
anybody = APIRouter(tags=["anybody"])

Key = Annotated[
    str,
    Header(
        alias=IDEMPOTENCY_KEY,
        pattern=KEY_PATTERN,
        description="the same key again is the same event: it is answered as at first, and changes nothing",
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
_event: dict[str, Any] = {
    "status_code": 201,
    "response_model": EventAnswer,
    "responses": {
        200: {"model": EventAnswer, "description": "this key was answered before"},
        409: {"model": Error, "description": "the key was another event's"},
    },
}


@agents.post("/v1/events/job-started", **_event)
def job_started(event: JobStarted, key: Key, response: Response, service: Of, caller: By) -> EventAnswer:
    """Report that a run of a job has begun."""
    return _take_one(service, event, key, caller, response)


@agents.post("/v1/events/job-finished", **_event)
def job_finished(event: JobFinished, key: Key, response: Response, service: Of, caller: By) -> EventAnswer:
    """Report that a run of a job has ended."""
    return _take_one(service, event, key, caller, response)


@agents.post("/v1/events", response_model=ReportsAnswer, responses={409: _event["responses"][409]})
def several_events(reports: Reports, service: Of, caller: By) -> ReportsAnswer:
    """Report several events at once, in their order; where one is refused, those before it are taken."""
    taken = [_take(service, report.event, report.key, caller) for report in reports.events]
    return ReportsAnswer(events=[answer for answer, _ in taken])


def _take_one(
    service: Service, event: JobStarted | JobFinished, key: str, caller: Caller, response: Response
) -> EventAnswer:
    answer, new = _take(service, event, key, caller)
    if not new:
        response.status_code = 200
    return answer


def _take(service: Service, event: JobStarted | JobFinished, key: str, caller: Caller) -> tuple[EventAnswer, bool]:
    """Record an event; False where its key was answered before."""
    answer, new = _again(lambda: _record(service, event, key, caller))
    if new:
        kind = ledger.STARTED if isinstance(event, JobStarted) else ledger.FINISHED
        service.metrics.events.labels(kind, event.source).inc()
        if isinstance(event, JobFinished):
            service.nudge()
    return answer, new


def _again(function: Callable[[], Made]) -> Made:
    """Do it once more where another process or an event has just made the same row: now it is there to be found."""
    try:
        return function()
    except sa.exc.IntegrityError:
        return function()


def _record(service: Service, event: JobStarted | JobFinished, key: str, caller: Caller) -> tuple[EventAnswer, bool]:
    try:
        with service.database.write(event.job_id) as session:
            answer, run = ledger.take(session, event, key, caller.who)
            if run is not None:
                put = [other for other in session.identity_map.values() if isinstance(other, Run)]
                session.info["afterwards"].extend(lambda run=run: service.board.put(run) for run in put)
        return answer, run is not None
    except ledger.KeyReusedError as error:
        raise Refusal(409, "idempotency_key_reused", str(error)) from error


@agents.post("/v1/samples", response_model=SampleAnswer)
def take_samples(sample: NodeSample, service: Of, caller: By) -> SampleAnswer:
    """Report what the jobs on a node use."""

    def record() -> SampleAnswer:
        with service.database.write() as session:
            return samples.take(session, service.board, sample)

    answer = _again(record)
    if not answer.recorded:
        return answer
    service.metrics.samples.inc()
    for run, suspended in samples.resumed_or_suspended(service.board, sample):
        with service.database.write(run.job_id) as session:
            changed = samples.set_suspended(session, run.key, suspended, sample, caller.who)
            if changed is not None:
                session.info["afterwards"].append(lambda changed=changed: service.board.put(changed))
    return answer


@readers.get("/v1/jobs", response_model=answers.Jobs)
def list_jobs(
    service: Of,
    state: Annotated[list[JobState] | None, Query(description="any of these; all if not given")] = None,
    user: Annotated[Name | None, Query()] = None,
    node: Annotated[Name | None, Query(description="those that are or were on this node")] = None,
    limit: Limit = 100,
    offset: Offset = 0,
    history: Annotated[float, Query(ge=0, le=1440, description="minutes of each job's use, as a short series")] = 0,
) -> answers.Jobs:
    """List jobs, newest first."""
    with service.database.read() as session:
        return queries.jobs(
            session,
            service.board,
            states=state or [],
            user=user,
            node=node,
            limit=limit,
            offset=offset,
            history=history,
        )


Cluster = Annotated[Name | None, Query(description="where several clusters have a job of this id")]
RunNumber = Annotated[int | None, Query(alias="run", ge=0, le=2**31 - 1, description="the last if not given")]


@readers.get("/v1/jobs/counts", response_model=answers.Counts)
def count_jobs(service: Of) -> answers.Counts:
    """Count jobs by state."""
    with service.database.read() as session:
        return queries.counts(session)


@readers.get("/v1/jobs/{job}", response_model=answers.Job, responses=_of_job)
def get_job(job: str, service: Of, cluster: Cluster = None, run: RunNumber = None) -> answers.Job:
    """Show a job, by its id or as slurm-ID."""
    with service.database.read() as session:
        found = queries.run_of(session, job, cluster, run)
        at = now()
        answer = queries.job(found, at, queries.usages(service.board, at, {found.id}).get(found.id))
        answer.runs = queries.briefs(session, found)
        return answer


@readers.get("/v1/jobs/{job}/metrics", response_model=answers.JobMetrics, responses=_of_job)
def get_job_metrics(
    job: str,
    service: Of,
    cluster: Cluster = None,
    run: RunNumber = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    points: Annotated[int, Query(ge=2, le=10000, description="of each node at most")] = 500,
) -> answers.JobMetrics:
    """Show what a job used on each of its nodes over time."""
    with service.database.read() as session:
        found = queries.run_of(session, job, cluster, run)
        return queries.metrics(session, found, since, until, points)


@readers.get("/v1/jobs/{job}/events", response_model=answers.Events, responses=_of_job)
def get_job_events(job: str, service: Of, cluster: Cluster = None) -> answers.Events:
    """Show the events of a job."""
    with service.database.read() as session:
        return queries.events(session, queries.run_of(session, job, cluster, None))


@readers.get("/v1/nodes", response_model=answers.Nodes)
def list_nodes(service: Of) -> answers.Nodes:
    """List the nodes."""
    with service.database.read() as session:
        return queries.nodes(session, service.board)


@admins.get("/v1/audit", response_model=answers.AuditLog)
def list_audit(
    service: Of,
    job_id: Annotated[int | None, Query(ge=1, le=2**32 - 1)] = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> answers.AuditLog:
    """List changes, newest first."""
    with service.database.read() as session:
        return queries.audit(session, job_id, limit, offset)


@anybody.get("/v1/health", response_model=answers.Health, responses={503: {"model": answers.Health}})
def health(request: Request, response: Response, service: Of) -> answers.Health:
    """Say how the service is; to callers without a token no names and no messages."""
    kind = "SQLite" if service.database.is_sqlite else "PostgreSQL"
    database = answers.Database(ok=True, kind=kind)
    try:
        service.database.check()
    except DatabaseError as error:
        database = answers.Database(ok=False, kind=kind, message=str(error))
    scheduler = service.scheduler()
    at = now()
    nodes = service.board.nodes()
    silent = sorted(name for (_, name), seen in nodes.items() if seen.silent(at))
    if service.gate.identify(request) is None:
        database.message = scheduler.message = ""
        silent = []
    status = "ok" if scheduler.ok is not False else "degraded"
    if not database.ok:
        status, response.status_code = "down", 503
    agents = answers.Agents(seen=len(nodes), silent=silent)
    return answers.Health(status=status, version=__version__, database=database, scheduler=scheduler, agents=agents)


@anybody.get("/metrics", response_class=Response, responses=_REFUSALS)
def metrics(request: Request, service: Of) -> Response:
    """Show the present, for Prometheus."""
    if not service.settings.metrics_open:
        service.gate.admit(request, Role.READER)
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


@anybody.get("/", include_in_schema=False)
def dashboard() -> FileResponse:
    """The dashboard."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


@anybody.post("/session", include_in_schema=False, status_code=204)
def sign_in(request: Request, body: SignIn, service: Of) -> Response:
    """Sign the dashboard in."""
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        service.gate.sign_in(request, body.token),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=service.settings.tls_cert_file is not None,
    )
    return response


@anybody.delete("/session", include_in_schema=False, status_code=204)
def sign_out(request: Request, service: Of) -> Response:
    """Sign the dashboard out."""
    service.gate.sessions.close(request.cookies.get(COOKIE, ""))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def create_app(service: Service) -> FastAPI:
    """Make the application.

    Args:
        service: its parts.

    Example:
        >>> app = create_app(Service(Settings(), Database("sqlite:///:memory:")))
        >>> app.title
        'Slurm job observability'
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.on_start()
        yield
        service.on_stop()

    app = FastAPI(
        title="Slurm job observability",
        version=__version__,
        description="Events of Slurm's jobs, and what they use. Every refusal is `{error: {code, message}}`.",
        # Their pages load scripts from elsewhere; a cluster may have no way there.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    for router in (agents, readers, admins, anybody):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _refused_by_framework)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(sa.exc.SQLAlchemyError, _database_failed)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(BodyLimit)
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
    said = str(first["msg"]).removeprefix("Value error, ")
    return _answer(Refusal(422, "invalid_request", f"{where}: {said}"))


def _database_failed(_: Request, error: Exception) -> Response:
    log.error("the database failed: %s", error)
    return _answer(
        Refusal(503, "database_unavailable", "the database is away, or refused; send it again", {"Retry-After": "5"})
    )


def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(Refusal(500, "internal_error", "the service failed here; its log says why"))
