"""Find, in the picture in memory, what check-ins say of variants that devices compared, and whom to
ask next. No statement where no policy chooses by measurement, or a class has its answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from pilotwave_protocol.figures import MEASURED, read_figures
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState
from pilotwave_server.db import touch_fleet
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.assignments.variants import comparable, failed_choice
from pilotwave_server.rollouts.choice import store as trials
from pilotwave_server.rollouts.choice.classes import class_of
from pilotwave_server.rollouts.choice.decide import Asked, to_ask
from pilotwave_server.rollouts.choice.store import Answer, Failure, Wish
from pilotwave_server.rollouts.choice.trial import asked_of, own_key
from pilotwave_server.telemetry.store import VerifiedCheckIn

Key = tuple[str, str]


@dataclass(frozen=True)
class TrialNews:
    """Whom to ask to measure, what was measured, and what failed where it was to run."""

    wishes: Sequence[Wish] = ()
    answers: Sequence[Answer] = ()
    failures: Sequence[Failure] = ()

    def __bool__(self) -> bool:
        return bool(self.wishes or self.answers or self.failures)


def heard(fleet: FleetState, items: Sequence[VerifiedCheckIn], now: datetime) -> TrialNews:
    """Return what these check-ins bring about."""
    snapshot = fleet.snapshot
    if not snapshot.chooses:
        return TrialNews()
    records = _records(fleet, items)
    wishes: list[Wish] = []
    answers: list[Answer] = []
    failures: list[Failure] = []
    asked: dict[Key, list[Asked]] = {}
    for item in items:
        record = records.get(item.check_in.device)
        if record is None or record.conflict:
            continue
        answers += _answers(item, record, snapshot)
        failures += _failures(item, record, snapshot)
        if item.check_in.refusal is None and record.reading_key == snapshot.reading_key:
            wishes += _wishes(fleet, item, record, snapshot, asked, now)
    return TrialNews(wishes, answers, failures)


def _records(fleet: FleetState, items: Sequence[VerifiedCheckIn]) -> dict[str, DeviceRecord]:
    """The devices as this process knows them; of those that it does not, who answers or failed is
    loaded, and who does not is asked another time."""
    answering = {
        item.check_in.device
        for item in items
        if any(event.kind == MEASURED for event in item.check_in.events)
        or any(report.state is ModelState.FAILED for report in item.check_in.models)
    }
    known = {i.check_in.device: fleet.records.get(i.check_in.device) for i in items}
    found = {name: record for name, record in known.items() if record is not None}
    missing = answering - found.keys()
    return {**found, **fleet.load(missing)} if missing else found


def _failures(
    item: VerifiedCheckIn, record: DeviceRecord, snapshot: FleetSnapshot
) -> Iterator[Failure]:
    """Yield the variants chosen by measurement whose self-test failed there, once each."""
    for report in item.check_in.models:
        found = failed_choice(report, record.profile.groups, snapshot)
        if found is None:
            continue
        release, variant = found
        known = snapshot.trials.get((own_key(record.name), release.sha256), ())
        if not any(t.variant == variant for t in known):
            key = item.device_id, release.sha256, variant
            yield Failure(*key, report.reason or "", item.check_in.directive_seq)


def _answers(
    item: VerifiedCheckIn, record: DeviceRecord, snapshot: FleetSnapshot
) -> Iterator[Answer]:
    for event in item.check_in.events:
        release = snapshot.versions.get((event.model or "", event.version or ""))
        found = read_figures(event.detail) if event.kind == MEASURED else None
        if release is not None and found is not None:
            of = class_of(dict(record.profile.capabilities))
            yield Answer(item.device_id, of, release.sha256, *found)


def _wishes(
    fleet: FleetState,
    item: VerifiedCheckIn,
    record: DeviceRecord,
    snapshot: FleetSnapshot,
    asked: dict[Key, list[Asked]],
    now: datetime,
) -> Iterator[Wish]:
    facts = dict(record.profile.capabilities)
    for entry in fleet.order(record, snapshot).entries:
        names = _compares(entry, record, snapshot)
        if not names:
            continue
        key = (class_of(facts), entry.sha256)
        counted = asked.get(key)
        if counted is None:
            counted = asked[key] = asked_of(snapshot.trials.get(key, ()), now)
        told = any(t.device == record.name for t in snapshot.trials.get(key, ()))
        variants = () if told else to_ask(record.name, entry.variant, names, counted)
        if variants:
            counted += [Asked(record.name, variant) for variant in variants]
            yield Wish(item.device_id, *key, variants)


def _compares(entry: Entry, record: DeviceRecord, snapshot: FleetSnapshot) -> tuple[str, ...]:
    choose = snapshot.choose_of(record.profile.groups, entry.model, entry.version)
    if choose is None:
        return ()
    release = snapshot.versions[entry.model, entry.version]
    return comparable(dict(record.profile.capabilities), release, choose)


def store(session: Session, news: TrialNews, taken: Collection[int], *, now: datetime) -> None:
    """Store it for the devices whose check-ins were taken. The caller holds the fleet's row."""
    wishes = [w for w in news.wishes if w.device_id in taken]
    answers = [a for a in news.answers if a.device_id in taken]
    trials.ask(session, wishes, now=now)
    failures = [f for f in news.failures if f.device_id in taken]
    noted = trials.note_failures(session, failures, now=now)
    if trials.take(session, answers, now=now) or wishes or noted:
        touch_fleet(session)
