"""A service on SQLite, whose Slurm does not answer, with its API as users see it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pamela
import pytest
from app_sessions import gate
from app_sessions.app import Service, create_app
from app_sessions.applications import Applications
from app_sessions.audit import now
from app_sessions.database import Database
from app_sessions.errors import SlurmAwayError
from app_sessions.models import SessionRow
from app_sessions.settings import Settings
from app_sessions.slurm.jobs import Partition, SlurmJob, Submission
from fastapi.testclient import TestClient

from slurm_testbed import data

APPLICATIONS = """
applications:
  - {id: gedit, title: Text editor, job_script: SCRIPT}
  - {id: xterm, title: Terminal, job_script: SCRIPT, users: [alice]}
"""
#: Who may log in here, and how; PAM itself is asked on a cluster, by tests/viz.
PASSWORDS = {"alice": "of alice", "bob": "of bob", "root": "of root", "carol": "of carol"}


class Away:
    """A Slurm that does not answer, which needs no cluster to be true."""

    SAID = "Slurm does not answer: Unable to contact slurm controller (connect failure)"

    async def submit(self, job: Submission) -> int:
        raise SlurmAwayError(self.SAID)

    async def cancel(self, job_id: int, user: str) -> None:
        raise SlurmAwayError(self.SAID)

    async def jobs(self) -> list[SlurmJob]:
        raise SlurmAwayError(self.SAID)

    async def partition(self, name: str) -> Partition | None:
        raise SlurmAwayError(self.SAID)

    async def node_address(self, node: str) -> str:
        raise SlurmAwayError(self.SAID)


class Api:
    """The API of a service.

    Attributes:
        service: its parts.
        client: nobody's.
    """

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service, self.client = service, client
        self._tokens: dict[str, str] = {}

    def token(self, user: str = "alice") -> str:
        """A token of a user, who logs in for it."""
        if user not in self._tokens:
            body = {"username": user, "password": PASSWORDS[user]}
            answer = self.client.post("/api/login", json=body)
            assert answer.status_code == 200, answer.text
            self._tokens[user] = answer.json()["token"]
            self.client.cookies.clear()
        return self._tokens[user]

    def headers(self, user: str = "alice") -> dict[str, str]:
        """The headers of a user's request."""
        return {"Authorization": f"Bearer {self.token(user)}"}

    def ask(self, method: str, path: str, status: int = 200, *, user: str = "alice", **more: Any) -> Any:
        """What the API answers to a user; the status is checked."""
        answer = self.client.request(method, path, headers=self.headers(user), **more)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, status: int, *, user: str = "alice", **more: Any) -> tuple[str, str]:
        """Code and text of a refusal."""
        error = self.ask(method, path, status, user=user, **more)["error"]
        return error["code"], error["message"]

    def put(self, session_id: str = "x-1", **values: Any) -> SessionRow:
        """A session in the database, as if it had come so far."""
        given = {"owner": "alice", "app_id": "gedit", "status": "stopped", "geometry": "1280x800", "asked_port": 6080}
        row = SessionRow(id=session_id, **{"password": "", "created_at": now(), **given, **values})
        with self.service.database.write() as session:
            session.add(row)
        return row


Serve = Callable[..., Api]


@pytest.fixture(scope="session")
def _empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the newest schema; to make one takes longer than to copy it."""
    path = tmp_path_factory.mktemp("empty") / "app-sessions.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def applications(tmp_path: Path) -> Path:
    """A file of applications."""
    path = tmp_path / "applications.yaml"
    script = data.images() / "app-sessions" / "slurm_jobs" / "vnc_job.sh"
    path.write_text(APPLICATIONS.replace("SCRIPT", str(script)))
    return path


@pytest.fixture
def serve(tmp_path: Path, _empty: Path, applications: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Makes a service with settings; the same folder again is a restart. It does not look at Slurm by itself."""
    made: list[Service] = []

    def authenticate(user: str, password: str, service: str) -> None:
        if PASSWORDS.get(user) != password:
            raise pamela.PAMError("no")

    monkeypatch.setattr(gate.pamela, "authenticate", authenticate)
    monkeypatch.setattr(gate.pamela, "check_account", lambda user, service: None)
    uids = {"alice": 1000, "bob": 1001, "carol": 1002, "root": 0}
    monkeypatch.setattr(gate, "_uid", uids.__getitem__)

    def make(folder: str = "state", **settings: Any) -> Api:
        place = tmp_path / folder
        if not place.exists():
            place.mkdir()
            shutil.copy(_empty, place)
        known = Settings(APP_SESSIONS_STATE_FOLDER=place, APP_SESSIONS_APPLICATIONS_FILE=applications, **settings)
        service = Service(known, Database(known.database_url), Applications.load(applications), Away())
        made.append(service)
        return Api(service, TestClient(create_app(service), raise_server_exceptions=False))

    yield make
    for service in made:
        service.database.close()


@pytest.fixture
def api(serve: Serve) -> Api:
    """A service with default settings."""
    return serve()
