"""The database: an engine, transactions, the schema brought up to date, and one service alone on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.orm import Session

from app_sessions.errors import AppSessionsError
from app_sessions.models import Installation

MIGRATIONS = Path(__file__).parent / "migrations"
#: Which advisory locks of PostgreSQL are ours: while the schema is changed, and while a service runs.
_LOCK, _MIGRATING, _SERVING = 0x5E55, 0, 1
#: Seconds that SQLite waits for another process, and libpq for a connection.
_WAIT_SECONDS = 10
Made = TypeVar("Made")


class DatabaseError(AppSessionsError):
    """The database cannot be used; the text says why, without its password."""


class Database:
    """One database, PostgreSQL or SQLite. It holds the sessions' passwords: SQLite's file is its owner's alone.

    Args:
        url: as SQLAlchemy has it.

    Example:
        >>> database = Database("sqlite:///:memory:")
        >>> database.migrate()
        >>> with database.read() as session:
        ...     session.scalar(sa.text("select count(*) from sessions"))
        0
    """

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.name = parsed.render_as_string(hide_password=True)
        self.path = None if not self.is_sqlite or parsed.database in {None, "", ":memory:"} else Path(parsed.database)
        # One process serves a database, so its own lock orders what it writes.
        self._writer = threading.Lock()
        self._reader: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._claim: contextlib.ExitStack = contextlib.ExitStack()
        if self.is_sqlite:
            self.engine = sa.create_engine(
                parsed,
                connect_args={"timeout": _WAIT_SECONDS, "check_same_thread": False},
                poolclass=sa.QueuePool if self.path else sa.StaticPool,
            )
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
            if self.path is None:
                self._reader = self._writer
            else:
                # SQLite makes its files with the mode of this one.
                with contextlib.suppress(OSError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        else:
            self.engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": _WAIT_SECONDS})

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session that changes nothing."""
        with self._reader, Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are kept all or not at all; nobody else writes meanwhile."""
        engine = self.engine.execution_options(write=True)
        with self._writer, Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    async def reading(self, function: Callable[[Session], Made]) -> Made:
        """What a function of a session returns, while the event loop goes on."""

        def run() -> Made:
            with self.read() as session:
                return function(session)

        return await asyncio.to_thread(run)

    async def writing(self, function: Callable[[Session], Made]) -> Made:
        """The same for one that changes something; kept when this returns, also where the caller is cancelled."""

        def run() -> Made:
            with self.write() as session:
                return function(session)

        return await asyncio.shield(asyncio.to_thread(run))

    def installation(self) -> Installation:
        """What the database says of itself."""
        with self.read() as session:
            return session.get_one(Installation, 1)

    def check(self) -> None:
        """Ask the database something.

        Raises:
            DatabaseError: it does not answer.
        """
        try:
            with self.read() as session:
                session.execute(sa.text("select 1"))
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseError(reason(error)) from error

    def claim(self) -> None:
        """Be the one service on this database until `close`: two would each start a session's job.

        Raises:
            DatabaseError: there is one already, or the database cannot be reached.
        """
        taken = DatabaseError(
            f"another app-sessions serves {self.name}: end it first, or give this one its own database"
        )
        if self.path is not None:
            lock = filelock.FileLock(f"{self.path}.lock", timeout=0, mode=0o600)
            try:
                self._claim.enter_context(lock)
            except filelock.Timeout:
                raise taken from None
        elif not self.is_sqlite:
            try:
                connection = self._claim.enter_context(self.engine.connect())
                held = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK, _SERVING)))
                connection.commit()
            except sa.exc.SQLAlchemyError as error:
                raise DatabaseError(f"{self.name}: {reason(error)}") from error
            if not held:
                raise taken

    def migrate(self, migrations: Path = MIGRATIONS) -> None:
        """Bring the schema up to date, one process at a time.

        Args:
            migrations: a folder of alembic's.

        Raises:
            DatabaseError: it cannot be reached, or its schema is of a newer version of this program.
        """
        config = Config()
        config.set_main_option("script_location", str(migrations))
        config.set_main_option("path_separator", "os")
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        try:
            with self._writer, self.engine.execution_options(write=True).begin() as connection:
                if not self.is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK, _MIGRATING)))
                found = set(MigrationContext.configure(connection).get_current_heads())
                if newer := found - known:
                    raise DatabaseError(
                        f"the schema of {self.name} is of a newer version (revision {', '.join(sorted(newer))}): "
                        "run that version of app-sessions, or restore a copy of before"
                    )
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseError(f"{self.name}: {reason(error)}") from error

    def close(self) -> None:
        """Close the connections, and give up the claim."""
        self._claim.close()
        self.engine.dispose()


def reason(error: sa.exc.SQLAlchemyError) -> str:
    """What the database itself said, in one line; SQLAlchemy's text would quote the statement and its values."""
    said = str(getattr(error, "orig", None) or error)
    return " ".join(said.split())


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Readers and the writer do not wait for one another. What is written before a job is submitted must outlive a loss
    # of power: https://sqlite.org/pragma.html#pragma_synchronous
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("write")
    connection.exec_driver_sql("begin immediate" if writes else "begin")
