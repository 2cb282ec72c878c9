"""The tables. A change here needs a revision in migrations/versions; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app_sessions.schema import Status


class Time(sa.types.TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no offset."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The tables of the service."""

    metadata = sa.MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy's own way
        datetime: Time(),
        dict[str, Any]: sa.JSON(none_as_null=True),
    }


class Installation(Base):
    """The one row about this database: by its name jobs are known as ours, by its key connections."""

    __tablename__ = "installation"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    key: Mapped[str]


class SessionRow(Base):
    """A session: what it should be, and what is known of its job."""

    __tablename__ = "sessions"
    __table_args__ = (sa.Index(None, "status"), sa.Index(None, "owner"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    app_id: Mapped[str]
    geometry: Mapped[str]
    status: Mapped[str] = mapped_column(default=Status.CREATING.value)
    message: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    #: What its owner wants besides: `delete`, `restart`, or nothing.
    wish: Mapped[str] = mapped_column(default="")
    #: Which run of it this is, from 1; the job's name has it.
    run: Mapped[int] = mapped_column(default=1)
    #: Whether this run's job may have been submitted: written before it is.
    submitted: Mapped[bool] = mapped_column(default=False)
    job_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    #: The port that the job was given; it takes another one where that is taken.
    asked_port: Mapped[int]
    vnc_port: Mapped[int | None]
    node: Mapped[str] = mapped_column(default="")
    node_ip: Mapped[str] = mapped_column(default="")
    #: Of the display; empty once the session has ended.
    password: Mapped[str]
    created_at: Mapped[datetime]
    running_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Login(Base):
    """A token of a user, of which only the digest is kept."""

    __tablename__ = "logins"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Audit(Base):
    """Who did what, when, from where; rows are only added, and outlive what they tell of."""

    __tablename__ = "audit"
    __table_args__ = (sa.Index(None, "session_id"),)

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)
    at: Mapped[datetime]
    who: Mapped[str]
    #: The caller's address; empty where the service did it by itself.
    source: Mapped[str] = mapped_column(default="")
    action: Mapped[str]
    session_id: Mapped[str] = mapped_column(default="")
    owner: Mapped[str] = mapped_column(default="")
    job_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    details: Mapped[dict[str, Any] | None]
