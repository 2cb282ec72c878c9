"""The schema, and one service alone on a database."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from app_sessions.database import Database, DatabaseError
from app_sessions.models import Base


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where SQLite's file will be."""
    return tmp_path / "new.db"


def test_migrations_make_what_the_models_say(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    database.migrate()
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)

    assert differences == []


def test_two_databases_have_different_names_and_keys(tmp_path: Path) -> None:
    known = []
    for name in ("one", "other"):
        database = Database(f"sqlite:///{tmp_path / name}")
        database.migrate()
        database.migrate()
        known.append(database.installation())

    assert known[0].name != known[1].name
    assert known[0].key != known[1].key
    assert len(known[0].key) >= 64


def test_sqlite_keeps_what_was_written_and_shows_it_to_its_owner_alone(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    database.migrate()
    with database.read() as session:
        assert session.scalar(sa.text("pragma journal_mode")) == "wal"
        assert session.scalar(sa.text("pragma synchronous")) == 2, "FULL"
        for one in path.parent.iterdir():
            assert stat.S_IMODE(one.stat().st_mode) == 0o600, one


def test_second_service_on_a_database_is_refused(path: Path) -> None:
    first, second = Database(f"sqlite:///{path}"), Database(f"sqlite:///{path}")
    first.claim()

    with pytest.raises(DatabaseError, match="another app-sessions serves .*new.db: end it first"):
        second.claim()
    first.close()
    second.claim()
    second.close()


def test_newer_schema_is_refused_in_words(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    database.migrate()
    with database.write() as session:
        session.execute(sa.text("update alembic_version set version_num = 'next'"))

    with pytest.raises(DatabaseError, match=r"is of a newer version \(revision next\): run that version"):
        database.migrate()


def test_error_has_no_password() -> None:
    database = Database("postgresql+psycopg://alice:very-secret@127.0.0.1:1/none")

    with pytest.raises(DatabaseError) as error:
        database.claim()
    assert "127.0.0.1" in str(error.value)
    assert "very-secret" not in str(error.value)
