"""Send a model back: to which versions it may go, and how the way begins."""

from __future__ import annotations

from dataclasses import replace

from pilotwave_agent.core.records import Record, moved
from pilotwave_agent.core.state import Failure, ModelSlot, Order
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState, Reason

S = ModelState
COMING = frozenset({S.FETCHING, S.VERIFYING, S.STAGED, S.TESTING, S.SHADOWING})


def forgotten(slot: ModelSlot, *, at: float) -> Record:
    """Make the record that drops the candidate, on its way or in shadow: nothing was switched."""
    return moved(
        slot,
        S.HEALTHY if slot.current else S.IDLE,
        at=at,
        event="shadow_ended" if slot.state is S.SHADOWING else None,
        about=slot.candidate,
        candidate=None,
        reason=None,
        detail=None,
    )


def back(
    slot: ModelSlot,
    reason: Reason,
    detail: str,
    *,
    at: float,
    order: Order | None = None,
    fault: bool = True,
) -> Record:
    """Make the record that begins the way back; `fault` holds it against the current version."""
    failed, attempt = None, slot.attempt
    if order and order.wanted == slot.current:
        attempt = order.attempt
    if fault and slot.current:
        failed = Failure(slot.current.sha256, slot.current.variant, attempt, str(reason))
    return moved(
        slot, S.ROLLING_BACK, at=at, failed=failed, reason=reason, detail=detail, watch=None
    )


def ways_back(slot: ModelSlot, memory: AntiRollback) -> tuple[Installed, ...]:
    """Return the versions that a model may go back to, best first."""
    known = [v for v in (slot.previous, slot.last_healthy, slot.older) if v is not None]
    ways = [
        v
        for v in dict.fromkeys(known)
        if v != slot.current
        and memory.forbids(slot.model, v.sha256, v.counter) is None
        and not any((f.sha256, f.variant) == (v.sha256, v.variant) for f in slot.failures)
    ]
    return tuple(ways)


def step_back(
    slot: ModelSlot, order: Order | None, memory: AntiRollback, *, at: float
) -> list[Record]:
    """Return the records that send a model back at the wish of someone at the device; none if
    there is nothing to go back to."""
    if not ways_back(slot, memory) or slot.state in (S.SWITCHING, S.ROLLING_BACK):
        return []
    records = []
    if slot.state in COMING:
        records = [forgotten(slot, at=at)]
        slot = replace(slot, state=S.HEALTHY, candidate=None)
    detail = "asked for at the device"
    return [*records, back(slot, Reason.LOCAL_ROLLBACK, detail, at=at, order=order)]
