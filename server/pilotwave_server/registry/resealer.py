"""Keep snapshot and timestamp fresh: a device takes no metadata that has expired.

Any number of servers may run this; the lock on the fleet's row lets one of them do it, and the
others find it done. Documents that nobody needs any more are deleted here too.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Root, Snapshot, Timestamp

from pilotwave_server.db import Database, lock_fleet, next_revision
from pilotwave_server.registry import documents
from pilotwave_server.registry.sealing import (
    SNAPSHOT_PART,
    TIMESTAMP_PART,
    is_due,
    seal,
    stamp,
)
from pilotwave_server.registry.tables import TufMetadataRow
from pilotwave_server.registry.trust import TrustStore

CHECK_INTERVAL_S = 30
KEEP_VERSIONS = 10
KEEP_FOR = timedelta(days=30)
CLOCK_SKEW = timedelta(seconds=documents.CLOCK_SKEW_S)


def keep_fresh(db: Database, trust: TrustStore, *, now: datetime) -> bool:
    """Sign anew what is due, and take over what other processes did; says whether it signed."""
    with db.read() as session:
        due = what_is_due(session, now)
    if due:
        with db.write() as session:
            lock_fleet(session)
            due = what_is_due(session, now)
            if due:
                _sign(session, due, trust, now)
                prune(session, now=now)
                next_revision(session)
        trust.committed()
        trust.exporter.tidy()
    else:
        trust.refresh()
    return bool(due)


def what_is_due(session: Session, now: datetime) -> str | None:
    """The role to sign anew: snapshot (which takes timestamp along), timestamp, or None."""
    for role, part in ((Snapshot.type, SNAPSHOT_PART), (Timestamp.type, TIMESTAMP_PART)):
        row = documents.find(session, role)
        if row is not None and row.created_at > now + CLOCK_SKEW:
            return Snapshot.type  # by a clock that ran ahead: devices hold its date against us
        if row is not None and is_due(
            created=row.created_at, expires=row.expires_at, part=part, now=now
        ):
            return role
    return None


def _sign(session: Session, role: str, trust: TrustStore, now: datetime) -> None:
    keys = trust.keys("online", session)
    if role == Snapshot.type:
        seal(session, changed=[], keys=keys, now=now)
    else:
        root = documents.need(session, Root.type, Root).signed
        stamp(session, root=root, keys=keys, now=now)


def prune(session: Session, *, now: datetime) -> None:
    """Delete old documents. Roots stay for ever: a device may need every one of them."""
    newest = select(TufMetadataRow.role, func.max(TufMetadataRow.version)).where(
        TufMetadataRow.role != Root.type
    )
    for role, version in session.execute(newest.group_by(TufMetadataRow.role)).all():
        session.execute(
            delete(TufMetadataRow).where(
                TufMetadataRow.role == role,
                TufMetadataRow.version <= version - KEEP_VERSIONS,
                TufMetadataRow.created_at < now - KEEP_FOR,
            )
        )
