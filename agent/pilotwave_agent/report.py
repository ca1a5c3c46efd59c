"""Put what the journal says into a check-in for the server and a status for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotwave_agent.state import DeviceState, ModelSlot, plain_slot
from pilotwave_agent.trimming import room, trimmed
from pilotwave_protocol.fields import MAX_INT, Scalar
from pilotwave_protocol.messages import (
    MAX_EVENTS,
    SMALL_CHECK_IN_BYTES,
    CheckIn,
    MetricReport,
    ModelReport,
)
from pilotwave_protocol.states import ModelState

_TUF_ROLES = ("root", "timestamp", "snapshot")


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
    metrics: tuple[MetricReport, ...] = (),
    max_bytes: int = SMALL_CHECK_IN_BYTES,
) -> CheckIn:
    """Make the next check-in.

    `facts` is None if they are as last reported; `trouble` is a reason and a sentence for a device
    that cannot even write its journal (a full disk). Events and windows of `metrics` beyond the
    message's size wait for the next one. The registry takes envelopes of `max_bytes`; models that
    do not fit are said in short, or left out.
    """
    refusal = (
        {"reason": state.refusal.reason, "detail": state.refusal.detail} if state.refusal else None
    )
    if trouble:
        refusal = {"reason": trouble[0], "detail": trouble[1][:500]}
    count = max(min(MAX_EVENTS, len(state.events)), 1)
    while True:
        report = CheckIn(
            fleet=fleet,
            device=device,
            seq=seq,
            agent=agent,
            directive_seq=state.memory.directive_seq,
            tuf={role: min(state.tuf.get(role, 0), MAX_INT) for role in _TUF_ROLES},
            models=tuple(_model(slot, progress) for slot in state.models.values()),
            events=state.events[:count],
            facts=dict(facts) if facts is not None else None,
            dropped_events=state.dropped,
            refusal=refusal,
            metrics=metrics,
        )
        if (count <= 1 and not metrics) or len(report.to_bytes()) <= room(max_bytes):
            return trimmed(report, state.orders, max_bytes=max_bytes)
        if count > 1:
            count //= 2
        else:
            metrics = metrics[: len(metrics) // 2]


def _model(slot: ModelSlot, progress: Mapping[str, int]) -> ModelReport:
    fetching = slot.state is ModelState.FETCHING
    return ModelReport(
        model=slot.model,
        state=slot.state,
        current=slot.current,
        previous=slot.previous,
        candidate=slot.candidate,
        reason=slot.reason,
        detail=slot.detail,
        progress=progress.get(slot.model) if fetching else None,
    )


def substance(state: DeviceState) -> object:
    """Return what the server should hear of soon; two states that are equal in it are no news."""
    return (
        tuple(_model(slot, {}) for slot in state.models.values()),
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
    plain["floor"] = state.memory.floors.get(slot.model, 0)
    return plain
