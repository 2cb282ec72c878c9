"""The tables. A change here needs a revision in migrations/versions; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

_INDEX = "ix_%(table_name)s_%(column_0_N_name)s"


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


#: SQLite numbers rows by itself only where the key is its own INTEGER.
_Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class Base(DeclarativeBase):
    """The tables of the service."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": _INDEX,
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy's own way
        datetime: Time(),
        dict[str, Any]: sa.JSON(none_as_null=True),
        list[str]: sa.JSON(none_as_null=True),
        float: sa.Double(),
    }


class Run(Base):
    """A run of a job: a job that Slurm requeues has several, numbered from 0."""

    __tablename__ = "runs"
    __table_args__ = (
        sa.UniqueConstraint("cluster", "job_id", "run"),
        sa.Index(None, "job_id"),
        sa.Index(None, "latest", "state"),
        sa.Index(None, "latest", "user"),
        sa.Index(None, "settled", "finished_at"),
    )

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    #: Empty until a reporter tells it.
    cluster: Mapped[str] = mapped_column(default="")
    job_id: Mapped[int] = mapped_column(sa.BigInteger)
    run: Mapped[int] = mapped_column(default=0)
    #: Whether no later run of the job is known.
    latest: Mapped[bool] = mapped_column(default=True)
    restarts: Mapped[int | None]
    state: Mapped[str]
    #: Why it waits, in Slurm's words.
    reason: Mapped[str] = mapped_column(default="")
    #: Whether slurmdbd's record confirmed the final state.
    settled: Mapped[bool] = mapped_column(default=False)
    name: Mapped[str] = mapped_column(default="")
    user: Mapped[str] = mapped_column(default="")
    partition: Mapped[str] = mapped_column(default="")
    account: Mapped[str] = mapped_column(default="")
    node_list: Mapped[list[str]] = mapped_column(default=list)
    cpu_allocation: Mapped[int | None] = mapped_column(sa.BigInteger)
    memory_allocation_mb: Mapped[int | None] = mapped_column(sa.BigInteger)
    gpu_allocation: Mapped[int | None] = mapped_column(sa.BigInteger)
    gpu_vendor: Mapped[str | None]
    gpu_devices: Mapped[list[str]] = mapped_column(default=list)
    cgroup_path: Mapped[str | None]
    array_job_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    array_task_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    het_job_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    submitted_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    suspended_at: Mapped[datetime | None]
    suspended_seconds: Mapped[float] = mapped_column(default=0.0)
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    peak_memory_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    cpu_seconds: Mapped[float | None]
    unread: Mapped[list[str]] = mapped_column(default=list)
    #: Who reported the start, and who the end: one source reports each once.
    started_by: Mapped[list[str]] = mapped_column(default=list)
    finished_by: Mapped[list[str]] = mapped_column(default=list)

    nodes: Mapped[list[RunNode]] = relationship(back_populates="of", cascade="all, delete-orphan")


class RunNode(Base):
    """A run on one of its nodes, with what was read of it last."""

    __tablename__ = "run_nodes"
    __table_args__ = (sa.Index(None, "node"),)

    run_key: Mapped[int] = mapped_column(sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    peak_memory_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    cpu_seconds: Mapped[float | None]

    of: Mapped[Run] = relationship(back_populates="nodes")


class EventRow(Base):
    """The one started and the one finished event of a run."""

    __tablename__ = "events"
    __table_args__ = (sa.UniqueConstraint("run_key", "kind"),)

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    run_key: Mapped[int] = mapped_column(sa.ForeignKey("runs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    source: Mapped[str]
    key: Mapped[str]
    timestamp: Mapped[datetime]
    received_at: Mapped[datetime]
    body: Mapped[dict[str, Any]]


class Receipt(Base):
    """What was answered to an Idempotency-Key."""

    __tablename__ = "receipts"

    key: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    job_id: Mapped[int] = mapped_column(sa.BigInteger)
    received_at: Mapped[datetime] = mapped_column(index=True)
    answer: Mapped[dict[str, Any]]


class JobSampleRow(Base):
    """What a job used on a node at one moment."""

    __tablename__ = "job_samples"
    __table_args__ = (sa.Index(None, "run_key", "timestamp"), sa.Index(None, "timestamp"))

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    run_key: Mapped[int] = mapped_column(sa.ForeignKey("runs.id", ondelete="CASCADE"))
    node: Mapped[str]
    timestamp: Mapped[datetime]
    cpu_usage_percent: Mapped[float | None]
    cpu_seconds: Mapped[float | None]
    memory_usage_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    peak_memory_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    #: Steps and GPUs, as the agent sent them.
    details: Mapped[dict[str, Any] | None]


class Node(Base):
    """A node: what its agent said last, and what Slurm says of it."""

    __tablename__ = "nodes"

    cluster: Mapped[str] = mapped_column(primary_key=True, default="")
    node: Mapped[str] = mapped_column(primary_key=True)
    #: By the service's clock; None where no agent has spoken.
    seen_at: Mapped[datetime | None]
    sampled_at: Mapped[datetime | None]
    sample: Mapped[dict[str, Any] | None]
    state: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    cpus: Mapped[int | None] = mapped_column(sa.BigInteger)
    cpus_allocated: Mapped[int | None] = mapped_column(sa.BigInteger)
    memory_mb: Mapped[int | None] = mapped_column(sa.BigInteger)
    memory_allocated_mb: Mapped[int | None] = mapped_column(sa.BigInteger)
    gres: Mapped[str] = mapped_column(default="")


class NodeSampleRow(Base):
    """What a node used at one moment."""

    __tablename__ = "node_samples"
    __table_args__ = (sa.Index(None, "cluster", "node", "timestamp"), sa.Index(None, "timestamp"))

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    cluster: Mapped[str]
    node: Mapped[str]
    timestamp: Mapped[datetime]
    cpu_usage_percent: Mapped[float | None]
    memory_usage_bytes: Mapped[int | None] = mapped_column(sa.BigInteger)
    job_count: Mapped[int]


class Audit(Base):
    """Who changed what, when, from where; rows are only added, and outlive what they tell of."""

    __tablename__ = "audit"
    __table_args__ = (sa.Index(None, "job_id"),)

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    at: Mapped[datetime]
    who: Mapped[str]
    #: The caller's address; of the service's own changes what it read.
    source: Mapped[str]
    action: Mapped[str]
    cluster: Mapped[str] = mapped_column(default="")
    job_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    run: Mapped[int | None]
    key: Mapped[str] = mapped_column(default="")
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
