"""Writing and reading the audit log. What is worth a line decides whoever makes the change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.orm import Session, SessionTransaction

from pilotwave_protocol.auditchain import START, chained
from pilotwave_server.audit.tables import AuditEventRow, AuditHeadRow
from pilotwave_server.paging import PageRequest, paginate

PENDING = "audit_pending"


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
    """Add a line in the caller's transaction; it is written when that commits.

    `actor` is `token/<name>`, `person/<name>`, `device/<name>` or `server`; `verb` a word as
    `device.pin`; `object` what it was done to, as `device/cam-017`; `before` and `after` plain JSON
    without secrets.
    """
    row = AuditEventRow(
        at=now,
        actor=actor,
        verb=verb,
        object=object,
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
    )
    session.info.setdefault(PENDING, []).append(row)


@event.listens_for(Session, "before_commit")
def _chain(session: Session) -> None:
    """Chain what was recorded. The head is the last row that a transaction locks, so nobody who
    holds it waits for anybody."""
    pending: list[AuditEventRow] = session.info.pop(PENDING, [])
    if not pending:
        return
    session.flush()
    head = session.get(AuditHeadRow, 1, with_for_update=True, populate_existing=True)
    if head is None:
        head = AuditHeadRow(id=1, sha256=START, events=0)
        session.add(head)
    for row, number in zip(pending, _next_ids(session, len(pending)), strict=True):
        row.id = number
        head.sha256 = row.sha256 = chained(head.sha256, plain(row))
    head.events += len(pending)
    session.add_all(pending)
    session.flush()


def _next_ids(session: Session, count: int) -> list[int]:
    """The numbers of the next events, which the chain covers: known before, so that any number of
    events is written by one statement. The head is held."""
    if session.get_bind().dialect.name != "postgresql":
        last = session.scalar(select(func.max(AuditEventRow.id))) or 0
        return list(range(last + 1, last + 1 + count))
    sequence = func.pg_get_serial_sequence(AuditEventRow.__tablename__, "id")
    each = func.generate_series(1, count).table_valued("n")
    return sorted(session.scalars(select(func.nextval(sequence)).select_from(each)))


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, previous: SessionTransaction) -> None:
    session.info.pop(PENDING, None)


def plain(row: AuditEventRow) -> dict[str, Any]:
    """An event as the chain covers it and the export shows it."""
    at = row.at.astimezone(timezone.utc).isoformat(timespec="microseconds")
    return {
        "id": row.id,
        "at": at.replace("+00:00", "Z"),
        "actor": row.actor,
        "verb": row.verb,
        "object": row.object,
        "before": row.before,
        "after": row.after,
        "sha256": row.sha256,
    }


def all_events(session: Session, *, after: int = 0) -> Iterator[dict[str, Any]]:
    """Every event behind number `after`, the oldest first, read in pieces."""
    e = AuditEventRow
    query = select(e).where(e.id > after).order_by(e.id).execution_options(yield_per=500)
    return (plain(row) for row in session.scalars(query))


def head(session: Session) -> tuple[str, int]:
    """The chain's last digest, and how many events it covers."""
    row = session.get(AuditHeadRow, 1)
    return (row.sha256, row.events) if row else (START, 0)


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
