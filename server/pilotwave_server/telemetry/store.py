"""Store a batch of check-ins in one transaction, with a fixed number of statements.

That they were signed by their devices is the caller's to have proved. What is stored here: that the
device was there, how its models stand, what happened, and its facts if they changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.check_in import CheckIn, DeviceEvent, MetricReport, ModelReport
from pilotwave_protocol.messages.facts import AGENT_LONGEST, AGENT_PROFILE
from pilotwave_server.db import lock_fleet, next_revision, update_rows, upsert
from pilotwave_server.devices.facts import normal_facts
from pilotwave_server.devices.intervals import every_s
from pilotwave_server.devices.report_tables import DeviceHistoryRow, DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import ServerError, Unauthorised
from pilotwave_server.telemetry import boots, refusing
from pilotwave_server.telemetry.counting import (
    Count,
    add_events,
    count_of,
    event_key,
    event_rows,
    stored_events,
)
from pilotwave_server.telemetry.freshness import Challenges, StaleSeq, judge
from pilotwave_server.telemetry.history import REMOVED, shown_by, told_by
from pilotwave_server.telemetry.live import NewWindow, store_windows

Labels = Mapping[str, str]
Facts = Mapping[str, Scalar]
Matters = Callable[[int, Labels, Facts, Facts], bool]
"""(fleet revision, labels, facts before, facts after): may the device's set change by this?"""


class Revoked(Unauthorised):
    code: ClassVar[str] = "revoked"


@dataclass(frozen=True)
class VerifiedCheckIn:
    """A check-in whose signature was good for the device's key of this generation."""

    device_id: int
    generation: int
    check_in: CheckIn


@dataclass(frozen=True)
class Stored:
    """What became of one check-in: what is acknowledged and the new windows, or the refusal.
    `conflict`: whether two machines use the key has to be looked at (`devices.conflicts`). `events`
    are those that were new. `diagnostics_wish` is as the device's row has it."""

    acked_event: int = 0
    acked_metric: int = 0
    windows: tuple[NewWindow, ...] = ()
    refusal: ServerError | None = None
    conflict: bool = False
    events: tuple[DeviceEvent, ...] = ()
    diagnostics_wish: str | None = None


MAY_BE_CUT = 32
"""A device leaves models out of a report that is too large; so many fit into any report."""


@dataclass
class _Batch:
    now: datetime
    check_in_s: int
    devices: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    revised: list[int] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    gone: list[tuple[int, str]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    windows: list[tuple[int, MetricReport]] = field(default_factory=list)


def store_check_ins(
    session: Session,
    items: Sequence[VerifiedCheckIn],
    *,
    matters: Matters,
    challenges: Challenges,
    check_in_s: int,
    now: datetime,
) -> list[Stored]:
    """Store what is new, in the caller's transaction; one answer per item, in order. `check_in_s`
    is how often the answers tell devices to check in.

    A batch holds at most one check-in of each device.
    """
    ids = [item.device_id for item in items]
    with_facts = [i.device_id for i in items if i.check_in.facts is not None]
    # taken before any device: whoever changes groups holds it too, so `matters` cannot be outdated
    fleet_revision = lock_fleet(session).fleet_revision if with_facts else 0
    known = _lock_devices(session, ids)
    facts = _labels_and_facts(session, with_facts)
    models = _models(session, ids)
    batch = _Batch(now, check_in_s)
    answers: list[Stored] = []
    counts = [_count(known.get(item.device_id), item, challenges) for item in items]
    stored = stored_events(session, [c.again for c in counts if isinstance(c, Count) and c.again])
    for item, count in zip(items, counts, strict=True):
        if not isinstance(count, Count):
            answers.append(Stored(refusal=count))
            continue
        device = count.device
        fresh = [e for e in count.events if event_key(device.id, e) not in stored]
        _add_device(batch, count, item.check_in, fresh)
        if refusing.has_turned(device.refusal, item.check_in):
            refusing.note(session, item.check_in, device.refusal, now=now)
        _add_models(batch, device, item.check_in, fresh, models[device.id])
        if device.id in facts and item.check_in.facts is not None:
            labels, before = facts[device.id]
            after = normal_facts(item.check_in.facts)
            if after != before:
                batch.facts.append({"id": device.id, "facts": after})
                if matters(fleet_revision, labels, before, after):
                    batch.revised.append(device.id)
        kept = batch.devices[-1]
        acked = kept["acked_event"], kept["acked_window"]
        answers.append(
            Stored(
                *acked,
                conflict=_is_conflict(device, kept),
                events=tuple(fresh),
                diagnostics_wish=device.diagnostics_wish,
            )
        )
    _write(session, batch)
    return _with_windows(session, items, answers, batch)


def _with_windows(
    session: Session, items: Sequence[VerifiedCheckIn], answers: list[Stored], batch: _Batch
) -> list[Stored]:
    """Store the windows, and say with each answer which are its."""
    found: dict[int, list[NewWindow]] = defaultdict(list)
    for window in store_windows(session, batch.windows, now=batch.now):
        found[window.device_id].append(window)
    return [
        replace(answer, windows=tuple(found[item.device_id]))
        if item.device_id in found and answer.refusal is None
        else answer
        for item, answer in zip(items, answers, strict=True)
    ]


def _lock_devices(session: Session, ids: list[int]) -> dict[int, Row[Any]]:
    d = DeviceRow.__table__.c
    numbers = (d.last_seq, d.acked_event, d.acked_window, d.numbering, d.plain_seq, d.event_run)
    conflict = (d.top_event, d.boots, d.conflict_since, d.conflict_at)
    own = (
        d.facts[AGENT_PROFILE].as_string().label("profile"),
        d.facts[AGENT_LONGEST].as_string().label("longest"),
    )
    refused = (d.refusal, d.refused_since)
    plain = (d.id, d.state, d.generation, d.check_in_s, d.diagnostics_wish)
    columns = select(*plain, *own, *numbers, *conflict, *refused)
    # in order of id, so that two batches never wait for each other in a ring
    locked = columns.where(d.id.in_(ids)).order_by(d.id).with_for_update()
    return {row.id: row for row in session.execute(locked)}


def _labels_and_facts(session: Session, ids: list[int]) -> dict[int, tuple[Labels, Facts]]:
    d = DeviceRow
    if not ids:
        return {}
    rows = session.execute(select(d.id, d.labels, d.facts).where(d.id.in_(ids)))
    return {row.id: (row.labels, row.facts) for row in rows}


def _models(session: Session, ids: list[int]) -> dict[int, dict[str, Row[Any]]]:
    columns = DeviceModelRow.__table__.c
    found: dict[int, dict[str, Row[Any]]] = defaultdict(dict)
    for row in session.execute(select(*columns).where(columns.device_id.in_(ids))):
        found[row.device_id][row.model] = row
    return found


def _count(
    device: Row[Any] | None, item: VerifiedCheckIn, challenges: Challenges
) -> Count | ServerError:
    if device is None or device.state != "enrolled" or device.generation != item.generation:
        return Revoked("this device was revoked or enrolled anew: enrol again")
    fresh = judge(device, item.check_in, item.generation, challenges)
    return fresh if isinstance(fresh, StaleSeq) else count_of(device, item.check_in, fresh)


def _is_conflict(device: Row[Any], kept: Mapping[str, Any]) -> bool:
    """Say whether a conflict begins, or one that there was may be over."""
    return device.conflict_since is not None or kept["conflict_at"] != device.conflict_at


def _add_device(
    batch: _Batch, count: Count, check_in: CheckIn, fresh: Sequence[DeviceEvent]
) -> None:
    device, ids = count.device, [e.id for e in count.events]
    batch.windows += [(device.id, window) for window in count.windows]
    started = boots.after(device.boots, check_in.boot)
    conflict_at = batch.now if started.came_back else device.conflict_at
    batch.devices.append(
        {
            "id": device.id,
            "last_seq": check_in.seq,
            "numbering": check_in.numbering or "",
            "plain_seq": count.plain_seq,
            "event_run": count.event_run,
            "top_event": max([device.top_event, *ids]),
            "boots": started.names,
            "conflict_at": conflict_at,
            "acked_event": max([count.acked_event, *ids]),
            "acked_window": max([count.acked_window, *(w.id for w in count.windows)]),
            "dropped_events": check_in.dropped_events,
            "directive_seq": check_in.directive_seq,
            "agent": check_in.agent,
            "tuf_root": check_in.tuf.get("root", 0),
            "tuf_timestamp": check_in.tuf.get("timestamp", 0),
            "tuf_snapshot": check_in.tuf.get("snapshot", 0),
            "refusal": check_in.refusal,
            "refused_since": refusing.since(device, check_in, now=batch.now),
            "last_seen": batch.now,
            "last_check_in": batch.now,
            "check_in_s": _every_s(batch.check_in_s, device, check_in, conflict_at),
        }
    )
    batch.events += event_rows(device, count.event_run, fresh, now=batch.now)


def _every_s(told_s: int, device: Row[Any], check_in: CheckIn, conflict_at: datetime | None) -> int:
    """How often the device checks in from now on. Of two machines with its key, the one that comes
    less often counts: a conflict ends when it is silent."""
    stored = {AGENT_PROFILE: device.profile, AGENT_LONGEST: device.longest}
    interval_s = every_s(told_s, stored if check_in.facts is None else check_in.facts)
    return max(interval_s, device.check_in_s or 0) if conflict_at is not None else interval_s


def _add_models(
    batch: _Batch,
    device: Row[Any],
    check_in: CheckIn,
    fresh: Sequence[DeviceEvent],
    known: Mapping[str, Row[Any]],
) -> None:
    history = told = told_by(fresh, now=batch.now)
    for report in check_in.models:
        before = known.get(report.model)
        history = [*history, *shown_by(report, before, told=told, now=batch.now)]
        values = _plain_model(report)
        if before is None or any(getattr(before, name) != v for name, v in values.items()):
            same = before is not None and before.state == values["state"]
            since = before.since if before is not None and same else batch.now
            batch.models.append({"device_id": device.id, **values, "since": since})
    batch.history += [{"device_id": device.id, **became._asdict()} for became in history]
    absent = known.keys() - {r.model for r in check_in.models}
    if len(check_in.models) >= MAY_BE_CUT:
        absent &= {e.model for e in fresh if e.kind == REMOVED}
    batch.gone += [(device.id, model) for model in absent]


def _plain_model(report: ModelReport) -> dict[str, Any]:
    current, previous, candidate = report.current, report.previous, report.candidate
    return {
        "model": report.model,
        "state": str(report.state),
        "current_version": current and current.version,
        "current_sha256": current and current.sha256,
        "current_variant": current and current.variant,
        "previous_version": previous and previous.version,
        "candidate_version": candidate and candidate.version,
        "progress": report.progress,
        "reason": report.reason,
        "detail": report.detail,
    }


def _write(session: Session, batch: _Batch) -> None:
    update_rows(session, DeviceRow, batch.devices)
    update_rows(session, DeviceRow, batch.facts)
    if batch.revised:
        revision = next_revision(session)
        session.execute(
            update(DeviceRow).where(DeviceRow.id.in_(batch.revised)).values(revision=revision),
            execution_options={"synchronize_session": False},
        )
    upsert(session, DeviceModelRow, batch.models)
    if batch.gone:
        key = tuple_(DeviceModelRow.device_id, DeviceModelRow.model)
        session.execute(
            delete(DeviceModelRow).where(key.in_(batch.gone)),
            execution_options={"synchronize_session": False},
        )
    add_events(session, batch.events)
    if batch.history:
        session.execute(insert(DeviceHistoryRow), batch.history)
