"""The schema: made, upgraded with its data, refused when it is newer; what the models say is what there is."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from slurm_observability.service.database import MIGRATIONS, Database, DatabaseError
from slurm_observability.service.models import Base

from tests.unit.observability.service.conftest import Serve

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("colour", sa.String(), nullable=False, server_default="grey"))
    op.execute("update runs set colour = 'red' where job_id = 7")
"""


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """Migrations of a version to come."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    (folder / "versions" / "next.py").write_text(NEXT)
    return folder


def test_migrations_make_what_the_models_say(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    database.migrate()
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)

    assert differences == []


def test_older_schema_is_upgraded_and_its_data_kept(serve: Serve, newer: Path) -> None:
    api = serve()
    api.started(7, key="once")
    api.started(8)
    database = api.service.database

    database.migrate(newer)

    with database.read() as session:
        rows = session.execute(sa.text("select job_id, colour from runs order by job_id")).all()
    assert [tuple(row) for row in rows] == [(7, "red"), (8, "grey")]
    assert api.get("/v1/jobs/7")["user"] == "alice"
    assert api.started(7, key="once", status=200)["run"] == 0


def test_newer_schema_is_refused_in_words(tmp_path: Path, newer: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    database.migrate(newer)

    with pytest.raises(DatabaseError, match=r"is of a newer version \(revision next\): run that version"):
        database.migrate()


def test_upgrade_that_fails_changes_nothing(tmp_path: Path, newer: Path) -> None:
    (newer / "versions" / "next.py").write_text(NEXT.replace("where job_id", "where no_such_column"))
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    database.migrate()

    with pytest.raises(DatabaseError, match="no_such_column"):
        database.migrate(newer)
    with database.read() as session:
        assert "colour" not in {column["name"] for column in sa.inspect(session.connection()).get_columns("runs")}
    database.migrate()


def test_many_that_start_at_once_make_one_schema(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path / 'new.db'}") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda database: database.migrate(), databases))

    with databases[0].read() as session:
        assert session.scalar(sa.text("select count(*) from alembic_version")) == 1


def test_error_has_no_password() -> None:
    database = Database("postgresql+psycopg://alice:very-secret@127.0.0.1:1/none")

    with pytest.raises(DatabaseError) as error:
        database.migrate()
    assert "127.0.0.1" in str(error.value)
    assert "very-secret" not in str(error.value)


def test_change_that_fails_is_not_kept_and_nothing_runs_afterwards(serve: Serve) -> None:
    database = serve().service.database
    ran: list[str] = []

    def fail() -> None:
        with database.write(1) as session:
            session.execute(sa.text("insert into receipts values ('k', 'started', 1, '2026-01-01', '{}')"))
            session.info["afterwards"].append(lambda: ran.append("x"))
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as session:
        assert session.scalar(sa.text("select count(*) from receipts")) == 0
    assert ran == []


@pytest.mark.row("O-02.4")
def test_sqlite_keeps_what_was_answered_through_a_loss_of_power(serve: Serve) -> None:
    with serve().service.database.read() as session:
        assert session.scalar(sa.text("pragma journal_mode")) == "wal"
        assert session.scalar(sa.text("pragma synchronous")) == 2, "FULL"
