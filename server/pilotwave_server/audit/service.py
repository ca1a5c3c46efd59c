"""Writing and reading the audit log. What is worth a line decides whoever makes the change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.paging import PageRequest, paginate


def record(
    session: Session,
    *,
    actor: str,
    verb: str,
    object: str,
    now: datetime,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add a line in the caller's transaction.

    `actor` is `token/<name>`, `device/<name>` or `server`; `verb` a word as `device.pin`; `object`
    what it was done to, as `device/cam-017`; `before` and `after` plain JSON without secrets.
    """
    session.add(
        AuditEventRow(
            at=now,
            actor=actor,
            verb=verb,
            object=object,
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
        )
    )


def list_events(
    session: Session,
    *,
    page: PageRequest,
    object: str | None = None,
    actor: str | None = None,
    verb: str | None = None,
    since: datetime | None = None,
) -> tuple[list[AuditEventRow], str | None]:
    """The newest first; each filter is an exact match, `since` an earliest time."""
    query = select(AuditEventRow)
    if object is not None:
        query = query.where(AuditEventRow.object == object)
    if actor is not None:
        query = query.where(AuditEventRow.actor == actor)
    if verb is not None:
        query = query.where(AuditEventRow.verb == verb)
    if since is not None:
        query = query.where(AuditEventRow.at >= since)
    return paginate(session, query, keys=[AuditEventRow.id], page=page, descending=True)
