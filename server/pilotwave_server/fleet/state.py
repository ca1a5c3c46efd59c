"""The fleet in memory: one snapshot for all devices, one small record for each that was seen.

An unchanged poll is answered from here alone. Records are loaded when a device first shows up and
dropped when the database says that something about the device changed. What two devices have in
common (groups, capabilities, offers) is resolved once for both.

Order matters where changes come in, because a directive's `seq` must never stand for two sets:
everything is read at one moment of the database; then changed devices are forgotten; only then the
new snapshot is put up. A record enters only beside a snapshot that is at least as new as its own
reading. So at each moment snapshot and records fit together, and a reader has to take both at one
moment (`Polls._order`).
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.messages.facts import AGENT_SHADOWS
from pilotwave_server.db import Database, fleet_row
from pilotwave_server.devices.facts import capabilities
from pilotwave_server.devices.loading import LoadedDevice, load_devices
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.downloads.sites import LABEL
from pilotwave_server.fleet.records import (
    NO_LEASES,
    NO_TOOK,
    DeviceRecord,
    Order,
    Personal,
    Profile,
)
from pilotwave_server.registry.tables import VersionRow
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.assignments.resolve import explain, resolve
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot, RunningRollout
from pilotwave_server.rollouts.leases import Took, read_leases, read_shadows, read_took
from pilotwave_server.telemetry.store import Facts, Labels

MAX_SHARED = 100_000
FREEZE_EVERY = 20_000
NO_PERSONAL = Personal({}, {})


@dataclass(frozen=True)
class Hint:
    """What devices are told of the newest TUF versions, and who signs directives."""

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    director: str = ""

    @cached_property
    def header(self) -> bytes:
        """The value of the `pilotwave-tuf` header."""
        return b"%d.%d" % (self.root, self.timestamp)


class FleetState:
    """One process's picture of the fleet. Loading and refreshing may be done from any thread."""

    def __init__(self, db: Database, trust: TrustStore) -> None:
        self._db = db
        self._trust = trust
        self._lock = threading.Lock()
        self.remembered = RememberedSnapshot()
        self._revision = -1
        self._newest_version = 0
        self._changed: dict[str, int] = {}
        self._all_changed = -1
        self._orders: dict[object, Order] = {}
        self._profiles: dict[Profile, Profile] = {}
        self._revisions: dict[int, int] = {}
        self._leases: dict[frozenset[int], frozenset[int]] = {}
        self._took: dict[Took, Took] = {}
        self._unfrozen = 0
        self.records: dict[str, DeviceRecord] = {}
        self.hint = Hint()
        self.snapshot = FleetSnapshot(fleet="", revision=-1)
        # told, under the lock, which devices changed; they have to be quick
        self.on_refresh: list[Callable[[Collection[str]], object]] = []

    def refresh(self) -> None:
        """Take in what changed in the database since the last time."""
        with self._lock:
            with self._db.read() as session:
                row = fleet_row(session)
                if row.revision == self._revision:
                    return
                newest = session.scalar(select(func.max(VersionRow.id))) or 0
                snapshot = self.snapshot
                if (row.fleet_revision, newest) != (snapshot.revision, self._newest_version):
                    snapshot = read_snapshot(session, self.remembered)
                changed = self._changed_since(session, self._revision)
            # after the reading: devices must have metadata at least as new as what they are told
            self._trust.refresh()
            hint = self._newer_hint()
            if hint.director != self.hint.director:
                snapshot = replace(snapshot)  # as if new, so that each ETag is made anew
            self._forget(changed, row.revision)
            self._revision = row.revision
            self._newest_version = newest
            self.hint = hint
            if snapshot is not self.snapshot:
                self._orders = {}
                self.snapshot = snapshot
            for tell in self.on_refresh:
                tell(changed)

    def _newer_hint(self) -> Hint:
        if not self._trust.bootstrapped:
            return Hint()
        versions = self._trust.versions
        return Hint(*versions, director=self._trust.director_id)

    def _changed_since(self, session: Session, revision: int) -> list[str]:
        if not self.records and revision < 0:
            return []
        changed = select(DeviceRow.name).where(DeviceRow.revision > revision)
        return list(session.scalars(changed))

    def _forget(self, names: list[str], revision: int) -> None:
        if len(self._changed) > MAX_SHARED:
            self._changed = {}
            self._all_changed = revision
        for name in names:
            self._changed[name] = revision
            self.records.pop(name, None)

    def _changed_after(self, names: Collection[str], revision: int) -> bool:
        changed = self._changed
        return self._all_changed > revision or any(changed.get(n, -1) > revision for n in names)

    def load(self, names: Collection[str]) -> dict[str, DeviceRecord]:
        """Read devices from the database into `records`, and return those that there are."""
        while True:
            with self._db.read() as session:
                at = fleet_row(session).revision
                found = load_devices(session, names)
                ids = [device.id for device in found.values()]
                leases, took = read_leases(session, ids), read_took(session, ids)
                shadows = read_shadows(session, ids)
            if at > self._revision:
                self.refresh()
            with self._lock:
                if self._changed_after(found, at):
                    continue
                snapshot = self.snapshot
                made = {
                    name: self._record(
                        d,
                        leases.get(d.id, NO_LEASES),
                        took.get(d.id, NO_TOOK),
                        shadows.get(d.id, NO_TOOK),
                        snapshot,
                    )
                    for name, d in found.items()
                }
                self.records.update(made)
                self._freeze(len(made))
                return made

    def _freeze(self, more: int) -> None:
        """Have the collector of cycles pass the records by: it finds none in them, and looking
        through those of a million devices holds up every poll for a second."""
        self._unfrozen += more
        if self._unfrozen >= FREEZE_EVERY:
            self._unfrozen = 0
            gc.freeze()

    def _record(
        self,
        device: LoadedDevice,
        leases: frozenset[int],
        took: Took,
        shadows: Took,
        snapshot: FleetSnapshot,
    ) -> DeviceRecord:
        groups = snapshot.groups_of(device.labels, device.facts, device.member_of)
        profile = Profile(groups, capabilities(device.facts, snapshot.asked))
        if len(self._profiles) > MAX_SHARED:
            self._profiles = {}
        if len(self._leases) > MAX_SHARED:
            self._leases = {}
        if len(self._took) > MAX_SHARED:
            self._took = {}
        old = self.records.get(device.name)
        record = DeviceRecord(
            id=device.id,
            name=device.name,
            state=sys.intern(device.state),
            generation=device.generation,
            revision=self._same(device.revision),
            public_key=bytes.fromhex(device.public_key),
            profile=self._profiles.setdefault(profile, profile),
            reading_key=snapshot.reading_key,
            personal=Personal(device.pins, device.attempts)
            if device.pins or device.attempts
            else None,
            leases=self._leases.setdefault(leases, leases),
            took=self._took.setdefault(took, took) if took else NO_TOOK,
            shadows=self._took.setdefault(shadows, shadows) if shadows else NO_TOOK,
            bucket=device.bucket,
            site=sys.intern(str(device.labels.get(LABEL, ""))),
            refusing=device.refusing,
            conflict=device.conflict,
        )
        if old is not None:
            record.seen, record.note_after = old.seen, old.note_after
            record.asks_after = old.asks_after
        return record

    def _same(self, revision: int) -> int:
        """The number as one object for all the devices that have it."""
        if len(self._revisions) > MAX_SHARED:
            self._revisions = {}
        return self._revisions.setdefault(revision, revision)

    def order(self, record: DeviceRecord, snapshot: FleetSnapshot) -> Order:
        """Return what the device of `record` is to run. Asked once per device and snapshot."""
        known = record.bucket, record.profile.groups, record.name, record.leases
        running = [r for rollouts in snapshot.rollouts.values() for r in rollouts]
        record.wants = tuple(
            r.row_id for r in running if r.wants_lease(*known) or self._wants_shadow(record, r)
        )
        if record.conflict:
            record.wants = ()
        alone = record.personal is not None or record.name in snapshot.told_apart
        if alone or record.conflict:
            return self._resolve(record, snapshot)
        offers = tuple(r.row_id for r in running if r.offers(*known))
        back = {r.row_id for r in running if r.takes_back} if record.took else ()
        returns = frozenset(taken for taken in record.took if taken[0] in back)
        trying = (r.row_id for r in running if record.shadows and r.tries(*known[:3]))
        tries = {row_id for row_id in trying if row_id not in offers}
        shadows = frozenset(let_in for let_in in record.shadows if let_in[0] in tries)
        key = (snapshot.revision, record.profile, offers, returns, shadows)
        order = self._orders.get(key)
        if order is None:
            if len(self._orders) > MAX_SHARED:
                self._orders = {}
            order = self._orders[key] = self._resolve(record, snapshot)
        return order

    def wants_blob(self, record: DeviceRecord, sha256: str) -> Entry | None:
        """Return the entry of its order that a blob belongs to; of several, the first model's."""
        order, snapshot = record.order, record.ordered_in
        if order is None or snapshot is None or sha256 not in order.blobs:
            return None
        found = (e for e in order.entries if sha256 in snapshot.versions[e.model, e.version].blobs)
        return next(found, None)

    def _wants_shadow(self, record: DeviceRecord, rollout: RunningRollout) -> bool:
        known = record.bucket, record.profile.groups, record.name
        let_in = {row_id for row_id, _ in record.shadows}
        if not rollout.wants_shadow(*known, let_in):
            return False
        return (AGENT_SHADOWS, True) in record.profile.capabilities

    def would_take(
        self, record: DeviceRecord, rollout: RunningRollout, serving: str | None = None
    ) -> bool:
        """Say whether the device would be told to run the rollout's version if it had a lease, or,
        where it runs `serving`, to try it in shadow.

        False for one that is pinned, quarantined, or for which no variant fits.
        """
        device = self._view(record)
        if serving is None:
            leased = replace(device, leases=device.leases | {rollout.row_id})
        else:
            leased = replace(device, shadows=device.shadows | {(rollout.row_id, serving)})
        steps = explain(leased, self.snapshot, rollout.model)
        chosen = next((s.candidate for s in steps if s.hold is None), None)
        return (
            chosen is not None
            and chosen.rollout is not None
            and chosen.rollout.row_id == rollout.row_id
        )

    def _resolve(self, record: DeviceRecord, snapshot: FleetSnapshot) -> Order:
        found = resolve(self._view(record), snapshot)
        entries = found.entries
        releases = (snapshot.versions[e.model, e.version] for e in entries)
        return Order(entries, frozenset().union(*(r.blobs for r in releases)), found.remove)

    def _view(self, record: DeviceRecord) -> DeviceView:
        personal = record.personal or NO_PERSONAL
        return DeviceView(
            name=record.name,
            groups=record.profile.groups,
            facts=dict(record.profile.capabilities),
            pins=personal.pins,
            attempts=personal.attempts,
            bucket=record.bucket,
            leases=record.leases,
            conflict=record.conflict,
            took=record.took,
            shadows=record.shadows,
        )

    def matters(self, fleet_revision: int, labels: Labels, before: Facts, after: Facts) -> bool:
        """Say whether a change of facts may change a device's set (`telemetry.store.Matters`)."""
        snapshot = self.snapshot
        if fleet_revision != snapshot.revision:
            return True
        if capabilities(before, snapshot.asked) != capabilities(after, snapshot.asked):
            return True
        nowhere: frozenset[int] = frozenset()
        was = snapshot.groups_of(labels, before, nowhere)
        return was != snapshot.groups_of(labels, after, nowhere)

    def last_seen(self, name: str) -> datetime | None:
        """When the device last polled here, as far as this process remembers."""
        record = self.records.get(name)
        if record is None or not record.seen:
            return None
        return datetime.fromtimestamp(record.seen, timezone.utc)
