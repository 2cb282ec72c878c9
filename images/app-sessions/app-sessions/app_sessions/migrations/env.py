"""Run by alembic: upgrades the connection that Database.migrate holds, in its transaction."""

from __future__ import annotations

from alembic import context
from app_sessions.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
