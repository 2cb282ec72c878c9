"""The database: an engine, transactions, and the schema brought up to date."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).parent / "migrations"
#: Which advisory lock of PostgreSQL is ours while the schema is changed, and while a job is written.
_LOCK = 0x510A
#: Seconds that SQLite waits for another process, and PostgreSQL's libpq for a connection.
_WAIT_SECONDS = 10
#: How many jobs may be written at once, on PostgreSQL.
_WRITERS = 64


class DatabaseError(Exception):
    """The database cannot be used; the text says why, without its password."""


class Database:
    """One database, PostgreSQL or SQLite.

    Args:
        url: as SQLAlchemy has it.

    Raises:
        DatabaseError: the folder of SQLite's file is not there or may not be written.

    Example:
        >>> database = Database("sqlite:///:memory:")
        >>> database.migrate()
        >>> with database.read() as session:
        ...     session.scalar(sa.text("select count(*) from runs"))
        0
    """

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.name = parsed.render_as_string(hide_password=True)
        # SQLite has one writer; threads that wait for a lock of ours are woken at once, SQLite's own would poll.
        self._writers = [threading.Lock() for _ in range(1 if self.is_sqlite else _WRITERS)]
        self._reader: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.is_sqlite:
            in_memory = parsed.database in {None, "", ":memory:"}
            self.engine = sa.create_engine(
                parsed,
                connect_args={"timeout": _WAIT_SECONDS, "check_same_thread": False},
                poolclass=sa.StaticPool if in_memory else sa.QueuePool,
            )
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
            if in_memory:
                self._reader = self._writers[0]
        else:
            self.engine = sa.create_engine(
                parsed, pool_pre_ping=True, pool_size=20, connect_args={"connect_timeout": _WAIT_SECONDS}
            )

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session that changes nothing."""
        with self._reader, Session(self.engine) as session:
            yield session

    @contextlib.contextmanager
    def write(self, job_id: int | None = None) -> Iterator[Session]:
        """A session whose changes are kept all or not at all.

        What is put into its `info["afterwards"]`, a list of functions, runs once the changes are kept, and before
        anybody else in this process writes of the job.

        Args:
            job_id: a job of which only one session at a time may write.
        """
        engine = self.engine.execution_options(write=True)
        lock = contextlib.nullcontext() if job_id is None else self._writers[job_id % len(self._writers)]
        with self._writers[0] if self.is_sqlite else lock:
            with Session(engine, autoflush=False, expire_on_commit=False) as session, session.begin():
                session.info["afterwards"] = []
                if job_id is not None and not self.is_sqlite:
                    # Two reporters of one job must not both find that it has no run yet, also in two processes.
                    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK, _signed(job_id))))
                yield session
            for function in session.info["afterwards"]:
                function()

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
            with self._writers[0], self.engine.execution_options(write=True).begin() as connection:
                if not self.is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK, 0)))
                found = set(MigrationContext.configure(connection).get_current_heads())
                if newer := found - known:
                    raise DatabaseError(
                        f"the schema of {self.name} is of a newer version (revision {', '.join(sorted(newer))}): "
                        "run that version of slurm-observability, or restore a copy of before"
                    )
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseError(f"{self.name}: {reason(error)}") from error

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def reason(error: sa.exc.SQLAlchemyError) -> str:
    """What the database itself said, in one line; SQLAlchemy's text would quote the statement and its values."""
    said = str(getattr(error, "orig", None) or error)
    return " ".join(said.split())


def _signed(number: int) -> int:
    """A job id, of 32 bits without a sign, as PostgreSQL's integer."""
    return number - 2**32 if number >= 2**31 else number


def _prepare_sqlite(connection: Any, _: object) -> None:
    # In WAL mode readers and the writer do not wait for one another. An event that was answered must outlive a loss
    # of power, for its reporter forgets it: https://sqlite.org/pragma.html#pragma_synchronous
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute("pragma foreign_keys=on")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("write")
    connection.exec_driver_sql("begin immediate" if writes else "begin")
