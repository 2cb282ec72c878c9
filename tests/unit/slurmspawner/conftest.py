"""Spawners of a user in a hub's database, whose commands print what Slurm's print."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from jupyterhub import orm
from jupyterhub.objects import Hub
from jupyterhub.user import User
from sqlalchemy.orm import Session

Make = Callable[..., Any]


@pytest.fixture
def make_spawner() -> Iterator[Make]:
    """Makes a spawner of a class as the hub does: with its user, its record, and the state that is kept there."""
    engine = sqlalchemy.create_engine("sqlite:///:memory:")
    orm.Base.metadata.create_all(engine)
    db = Session(engine)
    # Its user is one that this machine knows.
    me = orm.User(name=pwd.getpwuid(os.getuid()).pw_name)
    record = orm.Spawner(name="", user=me)
    db.add_all([me, record])
    db.commit()

    def make(spawner_class: type, job_id: str = "", **settings: Any) -> Any:
        script = "#!/bin/sh\n{cmd}\n"
        settings = {"cmd": ["jupyterhub-singleuser"], "exec_prefix": "", "batch_script": script, **settings}
        user = User(me, {})
        spawner = spawner_class(db=db, hub=Hub(), user=user, orm_spawner=record, api_token="the-token", **settings)
        spawner.oauth_client_id = "client"
        spawner.load_state({"job_id": job_id} if job_id else record.state or {})
        return spawner

    yield make
    db.close()
    engine.dispose()


def shell(script: str) -> str:
    """A command that runs a script of the shell; arguments may follow. Braces would be the spawner's own templates."""
    return f"sh -c {shlex.quote(script)} command"


def prints(out: str = "", *, err: str = "", code: int = 0) -> str:
    """A command that prints this, and ends so."""
    return shell(f"printf '%s\\n' {shlex.quote(out)}; printf '%s\\n' {shlex.quote(err)} >&2; exit {code}")


def run(what: Awaitable[Any]) -> Any:
    """Await it, for 10 s at most."""

    async def bounded() -> Any:
        return await asyncio.wait_for(what, 10)

    return asyncio.run(bounded())
