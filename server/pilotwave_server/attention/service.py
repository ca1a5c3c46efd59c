"""List what needs attention; note who saw to it.

An entry's key holds what it is about and how it stands. When that changes, or comes again, the
entry is another one and nobody has acknowledged it yet. The key of an entry about many devices
holds who came last (`troubles.py`): it stays acknowledged while devices leave, until one comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from pilotwave_protocol import names
from pilotwave_server.attention.tables import AcknowledgementRow
from pilotwave_server.attention.troubles import troubles
from pilotwave_server.audit.service import record
from pilotwave_server.devices.silence import Silence
from pilotwave_server.errors import NotFound
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.learning.tables import ExperimentRow
from pilotwave_server.recovery.ahead import roles_that_went_back
from pilotwave_server.recovery.sentences import sentences
from pilotwave_server.registry.service import expiries
from pilotwave_server.rollouts.tables import RolloutRow

SOON_DAYS = 14
RECENT = timedelta(days=2)
MOST_ROLLOUTS = 20
_TITLES: Mapping[str, tuple[str, str, str]] = {
    "pending": (
        "1 device is waiting to be accepted",
        "{:,} devices are waiting to be accepted",
        "compare the key that it shows before you accept it",
    ),
    "conflict": ("1 key is used by two machines", "{:,} keys are used by two machines", ""),
    "refusing": (
        "1 device refuses its orders",
        "{:,} devices refuse their orders",
        "the page of each device says why, and what to do",
    ),
    "failing": ("1 device is failing", "{:,} devices are failing", "a version failed or went back"),
    "silent": ("1 device is silent", "{:,} devices are silent", "three check-ins were missed"),
    "drifting": (
        "1 device meets other inputs than its model's reference",
        "{:,} devices meet other inputs than their model's reference",
        "the page of each device says by which figure, and shows its course",
    ),
}
"""By kind of trouble: the title for one device, for several, and the sentence."""


class NothingToAcknowledge(NotFound):
    """No entry has this key now: it changed, or is over."""

    code: ClassVar[str] = "nothing_to_acknowledge"


@dataclass(frozen=True)
class Item:
    """One entry. `object` is what it is about (`rollout/r5`), `state` a word for how it stands,
    `model` the model that it concerns (empty: none)."""

    key: str
    state: str
    object: str
    title: str
    sentence: str
    model: str = ""
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    note: str | None = None

    @property
    def topic(self) -> str:
        """How the keys of an entry about many devices begin; empty for any other entry."""
        kind = self.key.partition("/")[0]
        return f"{kind}/" if kind in _TITLES else ""

    def is_seen_in(self, key: str) -> bool:
        """Whether acknowledging `key` was acknowledging this entry, or one that had more in it."""
        if not self.topic:
            return key == self.key
        return key.startswith(self.topic) and len(key) == len(self.key) and key >= self.key


def list_items(session: Session, now: datetime, quiet: Silence) -> list[Item]:
    """All entries; those that nobody acknowledged come first."""
    found = [
        *_restored(session),
        *_rollouts(session, now),
        *_experiments(session, now),
        *_devices(session, quiet),
        *_roles(session, now),
    ]
    return _with_acknowledgements(session, found)


def list_items_of(session: Session, model: str, now: datetime) -> list[Item]:
    """The entries about one model: its rollouts and experiments, and its role where that expires
    soon."""
    found = [
        *_rollouts(session, now, RolloutRow.model == model),
        *_experiments(session, now, ExperimentRow.model == model),
        *(item for item in _roles(session, now) if item.model == model),
    ]
    return _with_acknowledgements(session, found)


def _with_acknowledgements(session: Session, found: Sequence[Item]) -> list[Item]:
    rows = list(session.scalars(select(AcknowledgementRow).where(_is_of(found))))
    items = [_with(i, next((row for row in rows if i.is_seen_in(row.key)), None)) for i in found]
    return sorted(items, key=lambda item: item.acknowledged_by is not None)


def acknowledge(
    session: Session, *, key: str, note: str, actor: str, now: datetime, quiet: Silence
) -> Item:
    """Note that somebody saw to an entry. NothingToAcknowledge."""
    item = _find(session, key, now, quiet)
    if item.acknowledged_by is None:
        _forget(session, item)
        session.add(AcknowledgementRow(key=key, note=note, by=actor, at=now))
        _note(session, "attention.acknowledge", item, actor, now, note)
    return _find(session, key, now, quiet)


def withdraw(session: Session, *, key: str, actor: str, now: datetime, quiet: Silence) -> Item:
    """Let an entry need attention again. NothingToAcknowledge."""
    item = _find(session, key, now, quiet)
    if item.acknowledged_by is not None:
        _forget(session, item)
        _note(session, "attention.withdraw", item, actor, now, None)
    return _find(session, key, now, quiet)


def _is_of(items: Sequence[Item]) -> ColumnElement[bool]:
    """The WHERE expression over acknowledgements that may be of these entries."""
    a = AcknowledgementRow
    topics = [a.key.startswith(item.topic) for item in items if item.topic]
    return or_(a.key.in_([item.key for item in items]), *topics)


def _forget(session: Session, item: Item) -> None:
    """Delete what was acknowledged of an entry, and of what it was before."""
    session.execute(delete(AcknowledgementRow).where(_is_of([item])))


def _find(session: Session, key: str, now: datetime, quiet: Silence) -> Item:
    session.flush()
    for item in list_items(session, now, quiet):
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


def _rollouts(session: Session, now: datetime, *rules: ColumnElement[bool]) -> Iterator[Item]:
    """Rollouts that wait for a person, or went wrong a short while ago."""
    r, g = RolloutRow, GroupRow
    failed = (r.state == "rolled_back") & (r.ended_at > now - RECENT)
    waits = or_(r.state.in_(("awaiting_approval", "paused", "draft")), failed)
    query = select(r, g.name).join(g, g.id == r.group_id).where(waits, *rules).order_by(r.id.desc())
    for row, group in session.execute(query.limit(MOST_ROLLOUTS)):
        title = f"{row.model} {row.version} → {group}"
        key = f"rollout/r{row.id}/{row.state}/{row.generation}"
        sentence = row.reason or row.description
        yield Item(key, row.state, f"rollout/r{row.id}", title, sentence, row.model)


def _experiments(session: Session, now: datetime, *rules: ColumnElement[bool]) -> Iterator[Item]:
    """Experiments that wait for a person, and those that came to an end a short while ago."""
    e = ExperimentRow
    ended = e.state.in_(("completed", "failed")) & (e.ended_at > now - RECENT)
    query = select(e).where(or_(e.state == "paused", ended), *rules).order_by(e.id.desc())
    for row in session.scalars(query.limit(MOST_ROLLOUTS)):
        title = f"{row.model} {row.plan} → {row.group}"
        taken = (
            f"take its result: `pilotwave learn fetch {row.model} {row.plan} --file BASE.onnx"
            " --evaluate UNSEEN.npz --out LEARNT.onnx`"
        )
        sentence = taken if row.state == "completed" else row.detail or ""
        key = f"experiment/{row.id}/{row.state}"
        yield Item(key, row.state, f"experiment/{row.id}", title, sentence, row.model)


def _devices(session: Session, quiet: Silence) -> Iterator[Item]:
    for trouble in troubles(session, quiet):
        one, many, sentence = _TITLES[trouble.kind]
        title = one if trouble.count == 1 else many.format(trouble.count)
        key, object_ = f"{trouble.kind}/{trouble.newest}", f"devices/{trouble.kind}"
        yield Item(key, trouble.kind, object_, title, sentence)


def _roles(session: Session, now: datetime) -> Iterator[Item]:
    for role in expiries(session):
        days = role.days_left(now)
        if days < SOON_DAYS and role.role not in ("snapshot", "timestamp"):
            title = f"{role.role} expires in {max(days, 0):.0f} days"
            key = f"expiry/{role.role}/{role.version}"
            sentence = f"run `pilotwave renew --role {role.role}`"
            yield Item(key, "failing", "", title, sentence, _model_of(role.role))


def _model_of(role: str) -> str:
    """The model whose role it is; empty for the fleet's roles."""
    return names.model_of_role(role) if role.startswith("models-") else ""
