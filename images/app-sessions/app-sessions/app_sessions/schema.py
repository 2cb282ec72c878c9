"""What the API takes and answers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Status(StrEnum):
    """The states of a session: creating, pending, running, stopped; or error, with a text that says what to do."""

    CREATING = "creating"
    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    ERROR = "error"

    @property
    def live(self) -> bool:
        """Whether a session in this state has a job, or will have one."""
        return self in {Status.CREATING, Status.PENDING, Status.RUNNING}


class Message(BaseModel):
    """What is sent to the service; it has no keys but these."""

    model_config = ConfigDict(extra="forbid")


class SignIn(Message):
    """A user's name and password, as on the login host."""

    username: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x20:/]+$")]
    password: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00]+$")]


class NewSession(Message):
    """Which application is to be started."""

    app_id: Annotated[str, StringConstraints(max_length=64)]


class SignedIn(BaseModel):
    """A token that stands for the user until it expires."""

    user: str
    admin: bool
    token: str
    expires_at: datetime


class User(BaseModel):
    """Who asks; `sessions_left` is what the quotas leave."""

    user: str
    admin: bool
    sessions_per_user: int
    sessions_left: int


class ApplicationItem(BaseModel):
    """An application that the caller may start, with what its job asks of Slurm."""

    id: str
    title: str
    description: str
    geometry: str
    partition: str
    cpus: int
    memory: str
    time: str


class Applications(BaseModel):
    """The applications that the caller may start."""

    applications: list[ApplicationItem]


class Session(BaseModel):
    """A session.

    Attributes:
        id: its name in the API, of its job and of the job's info file.
        status: see `Status`.
        message: why it is in this state, where there is more to say.
        reason: why the job waits, in Slurm's words.
        ending: whether its job is being ended, because it was deleted or restarted.
        run: how often it was started, from 1.
        node: the job's node; empty before it has one.
        node_ip: that node's address.
        vnc_port: where websockify listens on the node; None before it is known.
        displayUrl: `ws://node_ip:vnc_port`, for those who reach the nodes; a browser uses the service's own proxy.
    """

    id: str
    app_id: str
    title: str
    owner: str
    status: Status
    message: str
    reason: str
    ending: bool
    run: int
    job_id: int | None
    node: str
    node_ip: str
    vnc_port: int | None
    displayUrl: str  # noqa: N815  # the seed's name
    geometry: str
    created_at: datetime
    running_at: datetime | None
    ended_at: datetime | None


class Sessions(BaseModel):
    """Sessions, newest first."""

    sessions: list[Session]


class Connection(BaseModel):
    """How a viewer connects to a session's display.

    Attributes:
        path: of the WebSocket, on this service.
        protocols: subprotocols to offer; the second one is a token for this session and its owner.
        password: of the display's VNC authentication.
        expires_at: until when the token opens a connection; one that is open stays.
    """

    path: str
    protocols: list[str]
    password: str
    geometry: str
    expires_at: datetime


class AuditItem(BaseModel):
    """Who did what, when, from where; `service` is what the service did by itself."""

    at: datetime
    who: str
    source: str
    action: str
    session_id: str
    owner: str
    job_id: int | None
    details: dict[str, Any] | None


class AuditLog(BaseModel):
    """Some entries, newest first, and how many there are in all."""

    total: int
    limit: int
    offset: int
    entries: list[AuditItem]


class Part(BaseModel):
    """A part that the service needs; `ok` is None before it was asked."""

    kind: str
    ok: bool | None = None
    message: str = ""


class Health(BaseModel):
    """How the service is; `status` is `ok`, `degraded` (Slurm does not answer) or `down` (the database does not)."""

    status: Literal["ok", "degraded", "down"]
    version: str
    database: Part
    slurm: Part
    live_sessions: Annotated[int | None, Field(description="None where the database does not answer")]


class ErrorBody(BaseModel):
    """What went wrong: `code` for programs, `message` for people."""

    code: str
    message: str


class Error(BaseModel):
    """The answer of every request that fails."""

    error: ErrorBody
