"""The audit log as a table to which lines are only ever added; the database itself refuses more."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DDL, BigInteger, CheckConstraint, String, Text, event
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, JsonB, UtcDateTime


class AuditEventRow(Base):
    """One event: who did what to which thing, and how it looked before and after.

    `sha256` chains it to the event before (`pilotwave_protocol.auditchain`).
    """

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor: Mapped[str] = mapped_column(String(200), index=True)
    verb: Mapped[str] = mapped_column(String(64))
    object: Mapped[str] = mapped_column(String(300), index=True)
    before: Mapped[dict[str, Any] | None] = mapped_column(JsonB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JsonB)
    sha256: Mapped[str] = mapped_column(String(64))


class NoticeRow(Base):
    """What an upgrade decided and a person should look at. Migrations write it."""

    __tablename__ = "notices"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    object: Mapped[str] = mapped_column(String(200))
    sentence: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditHeadRow(Base):
    """The chain's last digest, in one row: whoever holds it adds the next event."""

    __tablename__ = "audit_head"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    sha256: Mapped[str] = mapped_column(String(64))
    events: Mapped[int] = mapped_column(BigInteger, default=0)


SQLITE_GUARDS = [
    f"CREATE TRIGGER audit_events_no_{deed} BEFORE {deed.upper()} ON audit_events "
    "BEGIN SELECT RAISE(ABORT, 'audit events are only ever added'); END"
    for deed in ("update", "delete")
]
POSTGRESQL_GUARDS = [
    "CREATE FUNCTION audit_events_only_added() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'audit events are only ever added'; END $$",
    "CREATE TRIGGER audit_events_no_change BEFORE UPDATE OR DELETE ON audit_events "
    "FOR EACH ROW EXECUTE FUNCTION audit_events_only_added()",
]
for _dialect, _guards in (("sqlite", SQLITE_GUARDS), ("postgresql", POSTGRESQL_GUARDS)):
    for _guard in _guards:
        event.listen(
            AuditEventRow.__table__,
            "after_create",
            DDL(_guard).execute_if(dialect=_dialect),  # type: ignore[no-untyped-call]  # untyped there
        )
