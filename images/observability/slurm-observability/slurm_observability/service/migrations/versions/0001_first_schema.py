"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("job_id", sa.BigInteger()),
        sa.Column("run", sa.Integer()),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True)),
        sa.Column("after", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_job_id", "audit", ["job_id"])
    op.create_table(
        "node_samples",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cpu_usage_percent", sa.Double()),
        sa.Column("memory_usage_bytes", sa.BigInteger()),
        sa.Column("job_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_node_samples"),
    )
    op.create_index("ix_node_samples_cluster_node_timestamp", "node_samples", ["cluster", "node", "timestamp"])
    op.create_index("ix_node_samples_timestamp", "node_samples", ["timestamp"])
    op.create_table(
        "nodes",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True)),
        sa.Column("sampled_at", sa.DateTime(timezone=True)),
        sa.Column("sample", sa.JSON(none_as_null=True)),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("cpus", sa.BigInteger()),
        sa.Column("cpus_allocated", sa.BigInteger()),
        sa.Column("memory_mb", sa.BigInteger()),
        sa.Column("memory_allocated_mb", sa.BigInteger()),
        sa.Column("gres", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "node", name="pk_nodes"),
    )
    op.create_table(
        "receipts",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_receipts"),
    )
    op.create_index("ix_receipts_received_at", "receipts", ["received_at"])
    op.create_table(
        "runs",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("latest", sa.Boolean(), nullable=False),
        sa.Column("restarts", sa.Integer()),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("partition", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("node_list", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("cpu_allocation", sa.BigInteger()),
        sa.Column("memory_allocation_mb", sa.BigInteger()),
        sa.Column("gpu_allocation", sa.BigInteger()),
        sa.Column("gpu_vendor", sa.String()),
        sa.Column("gpu_devices", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("cgroup_path", sa.String()),
        sa.Column("array_job_id", sa.BigInteger()),
        sa.Column("array_task_id", sa.BigInteger()),
        sa.Column("het_job_id", sa.BigInteger()),
        sa.Column("submitted_at", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("suspended_at", sa.DateTime(timezone=True)),
        sa.Column("suspended_seconds", sa.Double(), nullable=False),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("signal", sa.Integer()),
        sa.Column("peak_memory_bytes", sa.BigInteger()),
        sa.Column("cpu_seconds", sa.Double()),
        sa.Column("unread", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("started_by", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("finished_by", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("cluster", "job_id", "run", name="uq_runs_cluster_job_id_run"),
    )
    op.create_index("ix_runs_job_id", "runs", ["job_id"])
    op.create_index("ix_runs_latest_state", "runs", ["latest", "state"])
    op.create_index("ix_runs_latest_user", "runs", ["latest", "user"])
    op.create_index("ix_runs_settled_finished_at", "runs", ["settled", "finished_at"])
    op.create_table(
        "events",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("run_key", _KEY, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["run_key"], ["runs.id"], name="fk_events_run_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("run_key", "kind", name="uq_events_run_key_kind"),
    )
    op.create_table(
        "job_samples",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("run_key", _KEY, nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cpu_usage_percent", sa.Double()),
        sa.Column("cpu_seconds", sa.Double()),
        sa.Column("memory_usage_bytes", sa.BigInteger()),
        sa.Column("peak_memory_bytes", sa.BigInteger()),
        sa.Column("details", sa.JSON(none_as_null=True)),
        sa.ForeignKeyConstraint(["run_key"], ["runs.id"], name="fk_job_samples_run_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_job_samples"),
    )
    op.create_index("ix_job_samples_run_key_timestamp", "job_samples", ["run_key", "timestamp"])
    op.create_index("ix_job_samples_timestamp", "job_samples", ["timestamp"])
    op.create_table(
        "run_nodes",
        sa.Column("run_key", _KEY, nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger()),
        sa.Column("cpu_seconds", sa.Double()),
        sa.ForeignKeyConstraint(["run_key"], ["runs.id"], name="fk_run_nodes_run_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_key", "node", name="pk_run_nodes"),
    )
    op.create_index("ix_run_nodes_node", "run_nodes", ["node"])
