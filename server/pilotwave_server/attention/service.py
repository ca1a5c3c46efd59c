"""List what needs attention; note who saw to it.

An entry's key holds what it is about and how it stands. When that changes, or comes again, the
entry is another one and nobody has acknowledged it yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from pilotwave_server.attention.tables import AcknowledgementRow
from pilotwave_server.audit.service import record
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import NotFound
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.recovery.ahead import roles_that_went_back
from pilotwave_server.recovery.telling import sentences
from pilotwave_server.registry.service import expiries
from pilotwave_server.rollouts.tables import RolloutRow

SOON_DAYS = 14
RECENT = timedelta(days=2)
MOST_ROLLOUTS = 20


class NothingToAcknowledge(NotFound):
    """No entry has this key now: it changed, or is over."""

    code: ClassVar[str] = "nothing_to_acknowledge"


@dataclass(frozen=True)
class Item:
    """One entry. `object` is what it is about (`rollout/r5`), `state` a word for how it stands."""

    key: str
    state: str
    object: str
    title: str
    sentence: str
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    note: str | None = None


def list_items(session: Session, now: datetime) -> list[Item]:
    """All entries; those that nobody acknowledged come first."""
    found = [
        *_restored(session),
        *_rollouts(session, now),
        *_devices(session),
        *_roles(session, now),
    ]
    a = AcknowledgementRow
    query = select(a).where(a.key.in_([item.key for item in found]))
    seen = {row.key: row for row in session.scalars(query)}
    items = [_with(item, seen.get(item.key)) for item in found]
    return sorted(items, key=lambda item: item.acknowledged_by is not None)


def acknowledge(session: Session, *, key: str, note: str, actor: str, now: datetime) -> Item:
    """Note that somebody saw to an entry. NothingToAcknowledge."""
    item = _find(session, key, now)
    if item.acknowledged_by is None:
        session.add(AcknowledgementRow(key=key, note=note, by=actor, at=now))
        _note(session, "attention.acknowledge", item, actor, now, note)
    return _find(session, key, now)


def withdraw(session: Session, *, key: str, actor: str, now: datetime) -> Item:
    """Let an entry need attention again. NothingToAcknowledge."""
    item = _find(session, key, now)
    row = session.get(AcknowledgementRow, key)
    if row is not None:
        session.delete(row)
        _note(session, "attention.withdraw", item, actor, now, None)
    return _find(session, key, now)


def _find(session: Session, key: str, now: datetime) -> Item:
    session.flush()
    for item in list_items(session, now):
        if item.key == key:
            return item
    raise NothingToAcknowledge(f"nothing needs attention under the key {ascii(key)[:80]} now")


def _with(item: Item, row: AcknowledgementRow | None) -> Item:
    if row is None:
        return item
    return replace(item, acknowledged_by=row.by, acknowledged_at=row.at, note=row.note)


def _note(
    session: Session, verb: str, item: Item, actor: str, now: datetime, note: str | None
) -> None:
    session.flush()
    after = {"title": item.title, "note": note}
    record(
        session, actor=actor, verb=verb, object=f"attention/{item.key}"[:200], now=now,
        before=None, after=after,
    )  # fmt: skip


def _restored(session: Session) -> Iterator[Item]:
    for sentence in sentences(session, roles_that_went_back(session)):
        key = hashlib.sha256(sentence.encode()).hexdigest()[:16]
        yield Item(f"recovery/{key}", "failing", "", "restored server", sentence)


def _rollouts(session: Session, now: datetime) -> Iterator[Item]:
    """Rollouts that wait for a person, or went wrong a short while ago."""
    r, g = RolloutRow, GroupRow
    failed = (r.state == "rolled_back") & (r.ended_at > now - RECENT)
    waits = or_(r.state.in_(("awaiting_approval", "paused", "draft")), failed)
    query = select(r, g.name).join(g, g.id == r.group_id).where(waits).order_by(r.id.desc())
    for row, group in session.execute(query.limit(MOST_ROLLOUTS)):
        title = f"{row.model} {row.version} → {group}"
        key = f"rollout/r{row.id}/{row.state}/{row.generation}"
        yield Item(key, row.state, f"rollout/r{row.id}", title, row.reason or row.description)


def _devices(session: Session) -> Iterator[Item]:
    d = DeviceRow
    pending, newest = session.execute(
        select(func.count(), func.max(d.id)).where(d.state == "pending")
    ).one()
    if pending:
        words = "1 device waits" if pending == 1 else f"{pending:,} devices wait"
        yield Item(f"pending/{newest}", "pending", "devices/pending", f"{words} to join", "")
    doubled, last = session.execute(
        select(func.count(), func.max(d.conflict_since)).where(d.conflict_since.is_not(None))
    ).one()
    if doubled:
        words = "1 key is" if doubled == 1 else f"{doubled:,} keys are"
        key = f"conflict/{doubled}/{last:%Y%m%dT%H%M%S}"
        yield Item(key, "conflict", "devices/conflict", f"{words} used by two machines", "")


def _roles(session: Session, now: datetime) -> Iterator[Item]:
    for role in expiries(session):
        days = role.days_left(now)
        if days < SOON_DAYS and role.role not in ("snapshot", "timestamp"):
            title = f"{role.role} expires in {max(days, 0):.0f} days"
            key = f"expiry/{role.role}/{role.version}"
            yield Item(key, "failing", "", title, f"run `pilotwave renew --role {role.role}`")
