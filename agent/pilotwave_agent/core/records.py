"""Fold journal records into the device's state: pure, total, and the same on every replay.

A record is a JSON object with a kind `k` and the moment `at` (epoch seconds, for people). It states
a fact that has come about; folding it twice in a row after a crash cannot happen, since a record is
on disk before its consequence begins. What the device never forgets only grows here, whatever the
order of the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pilotwave_agent.core.state import (
    MAX_FAILURES,
    DeviceState,
    Failure,
    Measured,
    ModelSlot,
    Order,
    Refusal,
    from_plain,
    made,
    plain_memory,
    plain_state,
    read_field,
    read_memory,
    read_state,
    to_plain,
)
from pilotwave_agent.hardware.texts import clean
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.direct import FETCHED_DIRECTLY, direct_detail
from pilotwave_protocol.fields import ROOM
from pilotwave_protocol.figures import MEASURED
from pilotwave_protocol.messages.check_in import DeviceEvent, Installed
from pilotwave_protocol.reference import DRIFTED
from pilotwave_protocol.states import ModelState, may_follow

if TYPE_CHECKING:
    from pilotwave_protocol.verify_directive import VerifiedDirective

Record = dict[str, Any]
MAX_SPOOL = 256
MAX_DETAIL = 500
LAST_MOMENT = 253_402_300_799.0  # the last second of the year 9999
# when the spool is full, these go first: the state that follows them says the same
_LOW_VALUE = frozenset({"accepted", "fetching", "staged", "tested", "blocked"})


def snapshot(state: DeviceState) -> Record:
    """Make the record that a compacted journal begins with."""
    return {"k": "state", "state": to_plain(state)}


def moved(
    slot: ModelSlot,
    to: ModelState,
    *,
    at: float,
    event: str | None = None,
    failed: Failure | None = None,
    about: Installed | None = None,
    **fields: Any,
) -> Record:
    """Make the record of a model's step (or of news within its state).

    `fields` are the slot's fields that change with it, `event` the kind of the event that the
    server is told, `about` the version that the event names.
    """
    if to is not slot.state and not may_follow(slot.state, to):
        raise ValueError(f"{slot.model}: no step leads from {slot.state} to {to}")
    plain = {key: _plain(value) for key, value in fields.items()}
    record: Record = {"k": "moved", "at": at, "m": slot.model, **plain_state(to, "s"), "set": plain}
    if failed:
        record["failed"] = asdict(failed)
    if event:
        version = about.version if about else None
        record["event"] = {"kind": event, "version": version}
        record["event"]["reason"] = plain.get("reason")
        record["event"]["detail"] = plain.get("detail")
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return clean(str(value), MAX_DETAIL)
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def accepted(found: VerifiedDirective, *, raw_digest: str, at: float) -> Record:
    """Make the record of an accepted directive: orders and memory in one line, all or nothing."""
    orders = [
        Order(
            **{key: getattr(v.entry, key) for key in Order.__dataclass_fields__},
        )
        for v in found.entries
    ]
    return {
        "k": "accepted",
        "at": at,
        "raw": raw_digest,
        "orders": [asdict(o) for o in orders],
        "expires": found.directive.expires.timestamp(),
        "remove": sorted(found.directive.remove),
        "memory": plain_memory(found.memory),
    }


def refused(reason: str, detail: str, *, raw_digest: str, at: float) -> Record:
    """Make the record of a refused directive."""
    refusal = {"reason": reason, "detail": clean(detail, MAX_DETAIL)}
    return {"k": "refused", "at": at, "raw": raw_digest, "refusal": refusal}


def removed(slot: ModelSlot, *, at: float, detail: str | None = None) -> Record:
    """Make the record of a model that is off the device: nothing of it is used any more, and its
    files may go. What must never be forgotten is kept elsewhere (`AntiRollback`)."""
    record: Record = {"k": "removed", "at": at, "m": slot.model}
    if slot.current is not None:
        version = slot.current.version
        record["event"] = {"kind": "removed", "version": version, "detail": detail}
    return record


def cleared(model: str, *, at: float) -> Record:
    """Make the record that the files of a model that was removed are gone."""
    return {"k": "cleared", "at": at, "m": model}


def learned(memory: AntiRollback, tuf: Mapping[str, int], *, at: float) -> Record:
    """Make the record of what a refresh of the metadata taught."""
    return {"k": "learned", "at": at, "memory": plain_memory(memory), "tuf": dict(tuf)}


def acked(event: int, *, at: float) -> Record:
    """Make the record of the server's word that it has all events up to `event`."""
    return {"k": "acked", "at": at, "id": event}


def numbered(name: str, *, at: float) -> Record:
    """Make the record of the name under which events count from here on. Where the count has no
    room left (`ROOM`), it begins anew."""
    return {"k": "numbered", "at": at, "name": name}


def noticed(
    kind: str, *, at: float, reason: str | None = None, detail: str | None = None
) -> Record:
    """Make the record of an event that belongs to no model's step."""
    event = {"kind": kind, "reason": reason, "detail": detail and clean(detail, MAX_DETAIL)}
    return {"k": "event", "at": at, "event": event}


def drifted(model: str, version: str, metric: str, sentence: str, *, at: float) -> Record:
    """Make the record that inputs are no longer like the reference's."""
    detail = clean(sentence, MAX_DETAIL)
    event = {"kind": DRIFTED, "version": version, "reason": metric, "detail": detail}
    return {"k": "event", "at": at, "m": model, "event": event}


def measuring(model: str, known: Measured, *, at: float) -> Record:
    """Make the record that variants are about to be compared."""
    return {"k": MEASURED, "at": at, "m": model, "known": asdict(known), "events": []}


def measured(
    model: str, known: Measured, version: str, details: Sequence[str], *, at: float
) -> Record:
    """Make the record of what came of a comparison: one event for each variant."""
    events = [{"kind": MEASURED, "version": version, "detail": d} for d in details]
    return {**measuring(model, replace(known, done=True), at=at), "events": events}


def fetched_directly(model: str, version: str | None, *, at: float, came: int) -> Record:
    """Make the record of bytes that came from an object store, which the server did not see."""
    event = {"kind": FETCHED_DIRECTLY, "version": version, "detail": direct_detail(came)}
    return {"k": "event", "at": at, "m": model, "event": event}


def apply(state: DeviceState, record: Record) -> DeviceState:
    """Return the state after one record."""
    kind = record["k"]
    if kind == "state":
        return from_plain(record["state"])
    if kind == "acked":
        return _acked(state, record["id"])
    if kind == "moved":
        state = _moved(state, record)
    elif kind == "accepted":
        state = _accepted(state, record)
    elif kind == "refused":
        refusal = made(Refusal, record["refusal"])
        news = state.refusal != refusal
        state = replace(state, judged=record["raw"], refusal=refusal)
        if news:
            state = _spooled(state, {"kind": "refused", **record["refusal"]}, record["at"], None)
    elif kind == "removed":
        models = {name: slot for name, slot in state.models.items() if name != record["m"]}
        measured = {m: found for m, found in state.measured.items() if m != record["m"]}
        leaving = state.leaving | {record["m"]}
        state = replace(state, models=models, leaving=leaving, measured=measured)
    elif kind == "cleared":
        state = replace(state, leaving=state.leaving - {record["m"]})
    elif kind == "numbered":
        state = _numbered(state, record["name"])
    elif kind == MEASURED:
        known = made(Measured, record["known"])
        state = replace(state, measured={**state.measured, record["m"]: known})
        for event in record["events"]:
            state = _spooled(state, event, record["at"], record["m"])
    elif kind == "learned":
        memory = _merged(state.memory, read_memory(record["memory"]))
        state = replace(state, memory=memory, tuf=record["tuf"])
    if "event" in record:
        state = _spooled(state, record["event"], record["at"], record.get("m"))
    return state


def state_after(record: Record) -> ModelState:
    """Return the state that a record of a model's step leads to."""
    return read_state(record, "s")


def _moved(state: DeviceState, record: Record) -> DeviceState:
    slot = state.slot(record["m"])
    known = ModelSlot.__dataclass_fields__
    fields = {k: read_field(k, value) for k, value in record["set"].items() if k in known}
    to = state_after(record)
    if to is not slot.state:
        fields["since"] = record["at"]
    if "failed" in record:
        fields["failures"] = _with_failure(slot.failures, made(Failure, record["failed"]))
    if to is ModelState.HEALTHY and "last_healthy" in fields:
        fields["failures"] = _without(slot.failures, fields["last_healthy"])
    models = {**state.models, slot.model: replace(slot, state=to, **fields)}
    return replace(state, models=dict(sorted(models.items())))


def _with_failure(known: tuple[Failure, ...], failure: Failure) -> tuple[Failure, ...]:
    version = Installed("", failure.sha256, failure.variant, 0)
    return (*_without(known, version), failure)[-MAX_FAILURES:]


def _without(known: tuple[Failure, ...], version: Installed | None) -> tuple[Failure, ...]:
    if version is None:
        return known
    name = (version.sha256, version.variant)
    return tuple(f for f in known if (f.sha256, f.variant) != name)


def _accepted(state: DeviceState, record: Record) -> DeviceState:
    orders = {o["model"]: made(Order, o) for o in record["orders"]}
    before = state
    state = replace(
        state,
        orders=orders,
        orders_expire=record["expires"],
        memory=_merged(state.memory, read_memory(record["memory"])),
        judged=record["raw"],
        refusal=None,
        remove=frozenset(record.get("remove", ())),
    )
    same = (orders, state.remove) == (before.orders, before.remove)
    if same and before.refusal is None:
        return state
    parts = [f"{o.model} {o.version}" for o in orders.values()]
    parts += [f"no {model}" for model in sorted(state.remove)]
    wanted = ", ".join(parts) or "nothing"
    return _spooled(state, {"kind": "accepted", "detail": wanted[:MAX_DETAIL]}, record["at"], None)


def _merged(a: AntiRollback, b: AntiRollback) -> AntiRollback:
    # what is kept by key is whole in each record; what an older agent kept only ever grew
    later = b if b.ordered or a.ordered or b.directive_seq >= a.directive_seq else a
    known = a
    for model in sorted({*b.floors, *b.yanks, *b.epochs}):
        known = known.merged(model, b)
    return replace(
        known,
        directive_seq=later.directive_seq,
        set_digest=later.set_digest,
        floors=dict(sorted(known.floors.items())),
        yanked=a.yanked | b.yanked,
        ordered=later.ordered,
    )


def _spooled(
    state: DeviceState, event: Mapping[str, Any], at: float, model: str | None
) -> DeviceState:
    told = DeviceEvent(
        id=state.next_event,
        at=moment_of(at),
        kind=event["kind"],
        model=model,
        version=event.get("version"),
        reason=event.get("reason"),
        detail=event.get("detail"),
    )
    events, dropped = (*state.events, told), state.dropped
    if len(events) > MAX_SPOOL:
        events, dropped = _without_one(events), dropped + 1
    return replace(state, events=events, next_event=told.id + 1, dropped=dropped)


def moment_of(at: float) -> datetime:
    """Return when it was, within what a date can say, whatever the clock said."""
    within = min(max(at, 0.0), LAST_MOMENT)
    return datetime.fromtimestamp(within, timezone.utc).replace(microsecond=0)


def _numbered(state: DeviceState, name: str) -> DeviceState:
    if state.next_event <= ROOM:
        return replace(state, numbering=name)
    fresh = tuple(replace(e, id=1 + n) for n, e in enumerate(state.events))
    return replace(state, numbering=name, events=fresh, acked=0, next_event=1 + len(fresh))


def _without_one(events: tuple[DeviceEvent, ...]) -> tuple[DeviceEvent, ...]:
    """Drop the oldest event of low value, else the oldest."""
    drop = next((n for n, e in enumerate(events) if e.kind in _LOW_VALUE), 0)
    return events[:drop] + events[drop + 1 :]


def _acked(state: DeviceState, event: int) -> DeviceState:
    if event < state.next_event:
        kept = tuple(e for e in state.events if e.id > event)
        return replace(state, events=kept, acked=max(state.acked, event))
    # an older server, which knows of no numberings, has a later event than this journal ever
    # numbered: the journal was lost once, and under its old numbers that server would take today's
    # events for ones it has. Whoever writes the record bounds the jump (`report.py`).
    fresh = tuple(replace(e, id=event + 1 + n) for n, e in enumerate(state.events))
    return replace(state, events=fresh, acked=event, next_event=event + 1 + len(fresh))
