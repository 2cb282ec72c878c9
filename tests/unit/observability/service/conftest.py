"""A service on SQLite, with its API as a node, a reader and an administrator see it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from slurm_observability.service import tokens
from slurm_observability.service.app import Service, create_app
from slurm_observability.service.commands import build
from slurm_observability.service.settings import Settings
from slurm_observability.service.tokens import Role

Json = dict[str, Any]
#: A minute ago: what has just happened is not in the future by any clock.
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)


def at(seconds: float) -> str:
    """A moment, as events have it."""
    return (NOW + timedelta(seconds=seconds)).isoformat()


class Api:
    """The API of a service, for each role.

    Attributes:
        service: its parts.
        client: without a token.
        secrets: a token of each role.
    """

    def __init__(self, service: Service, client: TestClient, secrets: dict[Role, str]) -> None:
        self.service, self.client, self.secrets = service, client, secrets
        self._keys = 0

    def headers(self, role: Role | str, **more: str) -> dict[str, str]:
        """A request's headers; names as keywords, `Idempotency_Key`."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"Authorization": f"Bearer {self.secrets[Role(role)]}", **named}

    def get(self, path: str, role: Role | str = Role.READER, status: int = 200, **params: Any) -> Any:
        """What a GET answers; the status is checked."""
        answer = self.client.get(path, params=params, headers=self.headers(role))
        assert answer.status_code == status, answer.text
        return answer.json()

    def event(self, kind: str, status: int = 201, key: str = "", **body: Any) -> Json:
        """Report an event; the status is checked. Without a key it is a new one."""
        self._keys += 1
        headers = self.headers(Role.AGENT, Idempotency_Key=key or f"key-{self._keys}")
        answer = self.client.post(f"/v1/events/job-{kind}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        result: Json = answer.json()
        return result

    def started(self, job_id: int = 7, seconds: float = 0, status: int = 201, key: str = "", **more: Any) -> Json:
        """Report that a job began."""
        body = {"user": "alice", "node_list": ["n1"], "source": "prolog", "timestamp": at(seconds), **more}
        return self.event("started", status, key, job_id=job_id, **body)

    def finished(self, job_id: int = 7, seconds: float = 10, status: int = 201, key: str = "", **more: Any) -> Json:
        """Report that a job ended."""
        body = {"final_state": "completed", "exit_code": 0, "signal": 0, "source": "epilog", **more}
        return self.event("finished", status, key, job_id=job_id, timestamp=at(seconds), node_list=["n1"], **body)

    def several(self, *reports: Json, status: int = 200) -> Json:
        """Report several events at once; the status is checked."""
        answer = self.client.post("/v1/events", json={"events": list(reports)}, headers=self.headers(Role.AGENT))
        assert answer.status_code == status, answer.text
        result: Json = answer.json()
        return result

    def sample(self, *jobs: Json, node: str = "n1", seconds: float = 1, status: int = 200, **more: Any) -> Json:
        """Report a sample of a node."""
        body = {"node": node, "timestamp": at(seconds), "job_count": len(jobs), "jobs": list(jobs), **more}
        answer = self.client.post("/v1/samples", json=body, headers=self.headers(Role.AGENT))
        assert answer.status_code == status, answer.text
        result: Json = answer.json()
        return result

    def series(self, name: str) -> dict[str, float]:
        """The series of a metric, by their labels as they are written."""
        answer = self.client.get("/metrics", headers=self.headers(Role.READER))
        assert answer.status_code == 200, answer.text
        lines = [line for line in answer.text.splitlines() if line.startswith(name + "{")]
        return {line[len(name) + 1 : line.rindex("}")]: float(line.rsplit(" ", 1)[1]) for line in lines}


Serve = Callable[..., Api]


@pytest.fixture(scope="session")
def _apps() -> list[FastAPI]:
    """Applications that tests take in turn: FastAPI needs longer to make one than most tests to run."""
    return []


@pytest.fixture(scope="session")
def _empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the newest schema; to make one takes longer than to copy it."""
    folder = tmp_path_factory.mktemp("empty")
    build(Settings(OBSERVABILITY_STATE_FOLDER=folder)).database.close()
    return folder / "observability.db"


@pytest.fixture
def serve(tmp_path: Path, _apps: list[FastAPI], _empty: Path) -> Iterator[Serve]:
    """Makes a service with settings, which does not ask Slurm by itself; the same folder again is a restart."""
    made: list[Service] = []

    def make(folder: str = "state", **settings: Any) -> Api:
        place = tmp_path / folder
        if not place.exists():
            place.mkdir()
            shutil.copy(_empty, place)
        service = build(Settings(OBSERVABILITY_STATE_FOLDER=place, **settings))
        made.append(service)
        if len(made) > len(_apps):
            _apps.append(create_app(service))
        app = _apps[len(made) - 1]
        app.state.service = service
        secrets = {role: tokens.new() for role in Role}
        known = {token.name for token in service.gate.tokens.all()}
        for role, secret in secrets.items():
            service.gate.tokens.add(f"{role}-{len(known)}" if known else role.value, role, secret)
        return Api(service, TestClient(app, raise_server_exceptions=False), secrets)

    yield make
    for service in made:
        service.database.close()


@pytest.fixture
def api(serve: Serve) -> Api:
    """A service with default settings."""
    return serve()
