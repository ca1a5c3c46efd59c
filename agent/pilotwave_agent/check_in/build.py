"""Put what the journal says into a check-in for the server and a status for people."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pilotwave_agent.check_in.trim import room, trimmed
from pilotwave_agent.check_in.validate import sound
from pilotwave_agent.core.shadow import shadow_of
from pilotwave_agent.core.state import DeviceState, ModelSlot, plain_slot
from pilotwave_agent.hardware.texts import clean
from pilotwave_protocol.fields import MAX_INT, Scalar
from pilotwave_protocol.messages.check_in import (
    MAX_EVENTS,
    SMALL_CHECK_IN_BYTES,
    CheckIn,
    MetricReport,
    ModelReport,
)
from pilotwave_protocol.states import ModelState

_ROLES = ("root", "timestamp", "snapshot")


class Spare(Enum):
    """What is left out of a report that the server cannot take: nothing, all but the models and
    what the device follows, all but the latter."""

    NOTHING = 0
    SOME = 1
    MOST = 2

    def more(self) -> Spare:
        """Return the next step."""
        return Spare(min(self.value + 1, Spare.MOST.value))


def check_in_of(
    state: DeviceState,
    *,
    fleet: str,
    device: str,
    seq: int,
    agent: str,
    facts: Mapping[str, Scalar] | None,
    progress: Mapping[str, int],
    trouble: tuple[str, str] | None = None,
    shadows: Mapping[str, str] | None = None,
    metrics: tuple[MetricReport, ...] = (),
    max_bytes: int = SMALL_CHECK_IN_BYTES,
    spare: Spare = Spare.NOTHING,
    numbering: str | None = None,
    boot: str | None = None,
    challenge: str | None = None,
) -> CheckIn:
    """Make the next check-in.

    `facts` is None if they are as last reported; `trouble` is a reason and a sentence for a device
    that cannot even write its journal (a full disk). `shadows` has, by model, what keeps a version
    in shadow from being compared. Events and windows of `metrics` beyond the
    message's size wait for the next one. The registry takes envelopes of `max_bytes`; models that
    do not fit are said in short, or left out. What no server could read is left out (`sound`).
    """
    whole = spare is Spare.NOTHING
    events = tuple(e for e in state.events if e.id <= MAX_INT) if whole else ()
    metrics = metrics if whole else ()
    count = max(min(MAX_EVENTS, len(events)), 1)
    while True:
        report = CheckIn(
            fleet=fleet,
            device=device,
            seq=seq,
            agent=agent,
            directive_seq=_held(state.memory.directive_seq),
            tuf={role: _held(state.tuf.get(role, 0)) for role in _ROLES},
            models=()
            if spare is Spare.MOST
            else tuple(_model(slot, progress, shadows or {}) for slot in state.models.values()),
            events=events[:count],
            facts=dict(facts) if facts is not None and whole else None,
            dropped_events=_held(state.dropped),
            refusal=_refusal(state, trouble) if whole else None,
            metrics=metrics,
            numbering=numbering,
            boot=boot,
            challenge=challenge,
        )
        if (count > 1 or metrics) and _is_larger(report, room(max_bytes)):
            count, metrics = (count // 2, metrics) if count > 1 else (1, _half(metrics))
            continue
        readable = _readable(report, state, max_bytes)
        if readable.events or not report.events:
            return readable
        events = events[count:]  # nobody can read these: the next ones


def _readable(report: CheckIn, state: DeviceState, max_bytes: int) -> CheckIn:
    try:
        return sound(trimmed(report, state.orders, max_bytes=max_bytes))
    except ValueError:  # text that cannot be written, so that its size is not known
        return trimmed(sound(report), state.orders, max_bytes=max_bytes)


def _is_larger(report: CheckIn, most: int) -> bool:
    try:
        return len(report.to_bytes()) > most
    except ValueError:  # text that cannot be written; `sound` leaves it out
        return False


def _half(metrics: tuple[MetricReport, ...]) -> tuple[MetricReport, ...]:
    return metrics[: len(metrics) // 2]


def _held(number: int) -> int:
    """Hold a number within what a message can say: metadata may have higher ones."""
    return min(max(number, 0), MAX_INT)


def _refusal(state: DeviceState, trouble: tuple[str, str] | None) -> dict[str, str] | None:
    refusal = state.refusal
    said = trouble or (refusal and (refusal.reason, refusal.detail))
    return {"reason": clean(said[0], 64), "detail": clean(said[1], 500)} if said else None


def _model(slot: ModelSlot, progress: Mapping[str, int], shadows: Mapping[str, str]) -> ModelReport:
    fetching = slot.state is ModelState.FETCHING
    detail = slot.detail or shadows.get(slot.model)
    return ModelReport(
        model=slot.model,
        state=slot.state,
        current=slot.current,
        previous=slot.previous,
        candidate=slot.candidate,
        reason=slot.reason and clean(slot.reason, 64),
        detail=detail and clean(detail, 500),
        progress=progress.get(slot.model) if fetching else None,
    )


def substance(state: DeviceState) -> object:
    """Return what the server should hear of soon; two states that are equal in it are no news."""
    return (
        tuple(_model(slot, {}, {}) for slot in state.models.values()),
        state.next_event,
        state.refusal,
        state.memory.directive_seq,
    )


def status_of(state: DeviceState) -> dict[str, Any]:
    """Return what `status --json` and status.json say of the models."""
    return {
        "directive_seq": state.memory.directive_seq,
        "refusal": {"reason": state.refusal.reason, "detail": state.refusal.detail}
        if state.refusal
        else None,
        "tuf": dict(state.tuf),
        "models": [_plain_model(state, slot) for slot in state.models.values()],
        "events_waiting": len(state.events),
        "events_dropped": state.dropped,
    }


def _plain_model(state: DeviceState, slot: ModelSlot) -> dict[str, Any]:
    plain = plain_slot(slot)
    order = state.orders.get(slot.model)
    plain["ordered"] = order.version if order else None
    shadow = shadow_of(order)
    plain["shadow"] = shadow.to_plain() if shadow else None
    plain["floor"] = state.memory.floors.get(slot.model, 0)
    return plain
