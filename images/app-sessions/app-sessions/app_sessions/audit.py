"""Audit rows: who did what, when, from where."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from app_sessions.models import Audit, SessionRow


@dataclass(frozen=True)
class Who:
    """Who does something.

    Attributes:
        name: a user; `service` for what the service does by itself.
        address: where the request came from.
    """

    name: str
    address: str = ""


SERVICE = Who("service")


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def note(
    session: Session, who: Who, action: str, row: SessionRow | None = None, details: dict[str, Any] | None = None
) -> None:
    """Add a row about something that was done, to a session where one is given."""
    session.add(
        Audit(
            at=now(),
            who=who.name,
            source=who.address,
            action=action,
            session_id=row.id if row else "",
            owner=row.owner if row else "",
            job_id=row.job_id if row else None,
            details=details,
        )
    )
