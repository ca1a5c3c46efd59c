"""Store what check-ins say came of rollouts: a fixed number of statements for a batch.

Which rollouts a device may have to do with is the caller's to say (`Heard`), out of the picture in
memory; what a report means is `outcomes.py`'s. Locks as `leases.py` has them: who finds `is_news`
holds the fleet's row before the devices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session

from pilotwave_protocol.messages.check_in import DeviceEvent, ModelReport
from pilotwave_server.db import upsert
from pilotwave_server.devices.facts import told_by
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.rollouts.assignments.snapshot import RunningRollout
from pilotwave_server.rollouts.leases import DID_NOT, IN_SHADOW, RETURNED, TOOK_IT, revise
from pilotwave_server.rollouts.outcomes import Report, Stand, becomes, keeps, sign_of
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow

# a lease of a device that is on its way is not written anew with each report
FRESH_LEASE = timedelta(seconds=30)
_COLUMNS = (
    *("wave", "outcome", "leased_at", "switched_at", "changed_at", "number", "reason", "detail"),
    *("slices", "came_from", "left_at", "counts_from"),
)
_Rows = Mapping[tuple[int, int], Row[Any]]


@dataclass(frozen=True)
class Heard:
    """A device's report of the model of a rollout, written by `agent`. `may_join`: without a row,
    it may get one. `switches`: an open wave switches it, whatever it tried in shadow before.
    `has_another`: it is told another variant in place of one that failed."""

    device_id: int
    rollout: RunningRollout
    report: ModelReport
    events: Sequence[DeviceEvent]
    directive_seq: int
    may_join: bool
    agent: str = ""
    switches: bool = True
    has_another: bool = False

    @property
    def key(self) -> tuple[int, int]:
        return self.rollout.row_id, self.device_id

    def sign(self, now: datetime) -> Report:
        """Return how the device stands to the rollout's version."""
        version, agent = self.rollout.version, self.agent
        found = sign_of(self.report, self.events, version, now=now, agent=agent)
        coming = self.has_another and found.stand is Stand.FAILED
        return replace(found, stand=Stand.COMING) if coming else found


def is_news(session: Session, heard: Iterable[Heard], *, now: datetime) -> bool:
    """Say whether anything of it will change a row. It locks nothing."""
    heard = list(heard)
    return bool(heard) and any(True for _ in _changes(_rows(session, heard), heard, now))


def take(session: Session, heard: Iterable[Heard], *, now: datetime) -> set[int]:
    """Store what came of it; returns the rollouts (by row number) that have news of outcomes."""
    heard = list(heard)
    rows = _rows(session, heard) if heard else {}
    changes = list(_changes(rows, heard, now))
    if not changes:
        return set()
    waves = _waves(session, {h.rollout.row_id for h, _ in changes})
    slices = _slices(session, rows, changes)
    values, moved, news = [], [], set()
    for h, change in changes:
        row = rows.get(h.key)
        if row is None and h.rollout.row_id not in waves:
            continue
        before = _as_it_is(row) if row is not None else _fresh(waves[h.rollout.row_id])
        after = {**before, **change}
        if _leaves_shadow(before, after) and h.switches:
            after["wave"] = waves[h.rollout.row_id]
        if h.key in slices:
            after["slices"] = slices[h.key]
        values.append({"rollout_id": h.rollout.row_id, "device_id": h.device_id, **after})
        if _matters(before, after, sending_back=h.rollout.takes_back):
            moved.append(h.device_id)
        if before["outcome"] != after["outcome"] or before["left_at"] != after["left_at"]:
            news.add(h.rollout.row_id)
    upsert(session, RolloutDeviceRow, values)
    revise(session, sorted(set(moved)))
    return news


def _leaves_shadow(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return before["outcome"] in IN_SHADOW and after["outcome"] not in IN_SHADOW


def _matters(before: Mapping[str, Any], after: Mapping[str, Any], *, sending_back: bool) -> bool:
    """Say whether the device's record (`read_leases`, `read_took`) is another one now."""
    if keeps(before["outcome"]) != keeps(after["outcome"]):
        return not (sending_back and after["outcome"] == RETURNED)
    if _leaves_shadow(before, after):
        return True
    left = (before["left_at"] is None) != (after["left_at"] is None)
    took = keeps(after["outcome"]) and before["came_from"] != after["came_from"]
    return (left and not sending_back) or took


def _rows(session: Session, heard: Sequence[Heard]) -> _Rows:
    columns = RolloutDeviceRow.__table__.c
    query = select(*columns).where(
        columns.rollout_id.in_({h.rollout.row_id for h in heard}),
        columns.device_id.in_({h.device_id for h in heard}),
    )
    return {(row.rollout_id, row.device_id): row for row in session.execute(query)}


def _changes(
    rows: _Rows, heard: Sequence[Heard], now: datetime
) -> Iterable[tuple[Heard, dict[str, Any]]]:
    for h in heard:
        row = rows.get(h.key)
        sign = h.sign(now)
        if row is None and not h.may_join:
            continue
        if row is not None and sign.stand is Stand.COMING and now - row.changed_at < FRESH_LEASE:
            continue
        sending_back = h.rollout.takes_back
        seq = h.directive_seq
        change = becomes(row, sign, directive_seq=seq, sending_back=sending_back, now=now)
        if change is not None:
            yield h, change


def _waves(session: Session, rollouts: set[int]) -> dict[int, int]:
    r = RolloutRow
    query = select(r.id, r.wave).where(r.id.in_(rollouts))
    return dict(session.execute(query).tuples().all())


def _fresh(wave: int) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(_COLUMNS)
    return {**nothing, "wave": wave, "number": 0, "slices": {}, "counts_from": 0}


def _as_it_is(row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS}


def _slices(
    session: Session, rows: _Rows, changes: Sequence[tuple[Heard, dict[str, Any]]]
) -> dict[tuple[int, int], dict[str, str]]:
    """What gates tell devices apart by, of those that act for the first time."""
    wanted: dict[int, list[RunningRollout]] = defaultdict(list)
    for h, change in changes:
        row = rows.get(h.key)
        first = row is None or row.outcome not in (*TOOK_IT, *DID_NOT)
        if first and "outcome" in change and h.rollout.slice_keys:
            wanted[h.device_id].append(h.rollout)
    if not wanted:
        return {}
    d = DeviceRow
    found = {}
    query = select(d.id, d.labels, d.facts).where(d.id.in_(wanted))
    for id, labels, facts in session.execute(query):
        known = told_by(labels, facts)
        for rollout in wanted[id]:
            keys = [key for key in rollout.slice_keys if key in known]
            found[rollout.row_id, id] = {key: str(known[key]) for key in keys}
    return found
