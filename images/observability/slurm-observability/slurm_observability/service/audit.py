"""Audit rows: who changed what, when, from where, and what it was before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from slurm_observability.service.models import Audit, Run


@dataclass(frozen=True)
class Who:
    """Who asks for a change.

    Attributes:
        name: the token's name; `service` for what the service does by itself.
        source: the address that the request came from, or what the service read.
    """

    name: str
    source: str


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def note(session: Session, who: Who, action: str, run: Run, key: str = "") -> None:
    """Add a row about what this session has changed of a run; none where nothing is changed."""
    before, after = _changes(run)
    if not after:
        return
    session.add(
        Audit(
            at=now(),
            who=who.name,
            source=who.source,
            action=action,
            cluster=run.cluster,
            job_id=run.job_id,
            run=run.run,
            key=key,
            before=before or None,
            after=after,
        )
    )


def note_other(session: Session, who: Who, action: str, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    """Add a row about a change of something that is no job."""
    session.add(Audit(at=now(), who=who.name, source=who.source, action=action, before=before, after=after))


def _changes(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns that differ from what the database has: as they were, and as they are."""
    state = sa.inspect(run)
    before, after = {}, {}
    for column in state.mapper.column_attrs:
        history = state.attrs[column.key].history
        if not history.has_changes():
            continue
        if not state.transient and history.deleted:
            before[column.key] = _plain(next(iter(history.deleted)))
        after[column.key] = _plain(next(iter(history.added)))
    # A new run's empty columns say nothing.
    return before, after if before else {name: value for name, value in after.items() if value not in (None, "", [])}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
