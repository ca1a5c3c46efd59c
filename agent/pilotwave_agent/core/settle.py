"""Hold one model against its order and what is remembered: pure, beside `machine`.

What is ordered is fetched, unless it is forbidden or has failed here; what must not run goes back
to a version that may, if there is one.
"""

from __future__ import annotations

from pilotwave_agent.core.records import Record, moved
from pilotwave_agent.core.shadow import is_shadow
from pilotwave_agent.core.state import ModelSlot, Order
from pilotwave_agent.core.steps import Moment
from pilotwave_agent.core.ways_back import COMING, back, forgotten, ways_back
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState, Reason

S = ModelState
RESTING = frozenset({S.IDLE, S.HEALTHY, S.ROLLED_BACK, S.FAILED})


def settle(
    slot: ModelSlot, order: Order | None, memory: AntiRollback, now: Moment
) -> Record | None:
    """Hold a model against its order and what is remembered; None if it is on its way or there."""
    if slot.state in COMING:
        return _redirected(slot, order, memory, now)
    if slot.state not in RESTING and slot.state is not S.PROBATION:
        return None
    unfit = _unfit_current(slot, memory)
    if order and _has_nothing_to_try(slot, order, unfit):
        order = None
    if unfit and (slot.state is S.PROBATION or ways_back(slot, memory)):
        return back(slot, unfit[0], unfit[1], at=now.wall, fault=False)
    if order:
        wish = _wish(slot, order, memory, now)
        if wish:
            return wish
    if unfit and slot.state is not S.FAILED and slot.current:
        return _fail(slot, slot.current, unfit[0], _stays(unfit), now)
    return None if unfit else _allowed_again(slot, now)


def _has_nothing_to_try(slot: ModelSlot, order: Order, unfit: tuple[Reason, str] | None) -> bool:
    """Nothing is tried beside a version that should not run, nor a version beside itself."""
    return is_shadow(order) and (unfit is not None or order.wanted == slot.current)


def _stays(unfit: tuple[Reason, str]) -> str:
    """Say that a version goes on though it should not: taking it away would stop the model, and
    whoever stole a key could do that."""
    if unfit[0] is Reason.BLOB_MISMATCH:
        return f"{unfit[1]}; there is no other version to go to"
    return f"{unfit[1]}, but no other version here may run: it keeps serving until one is ordered"


def _allowed_again(slot: ModelSlot, now: Moment) -> Record | None:
    """A reset took back the yank or the floor that the running version had failed by."""
    forbidden = slot.reason in (Reason.YANKED, Reason.BELOW_FLOOR)
    if slot.state is not S.FAILED or not forbidden or slot.candidate != slot.current:
        return None
    return moved(
        slot,
        S.HEALTHY,
        at=now.wall,
        event="allowed_again",
        about=slot.current,
        candidate=None,
        reason=None,
        detail=None,
    )


def _unfit_current(slot: ModelSlot, memory: AntiRollback) -> tuple[Reason, str] | None:
    """Say why the running version should not run."""
    if slot.current is None:
        return None
    if slot.damaged:
        return Reason.BLOB_MISMATCH, f"{slot.current.version} is damaged on disk"
    forbidden = memory.forbids(slot.model, slot.current.sha256, slot.current.counter)
    if forbidden:
        return forbidden, _forbidden_words(slot.current, forbidden)
    return None


def _forbidden_words(version: Installed, reason: Reason) -> str:
    if reason is Reason.YANKED:
        return f"{version.version} was yanked by its publisher"
    return f"{version.version} is below the publisher's floor"


def _wish(slot: ModelSlot, order: Order, memory: AntiRollback, now: Moment) -> Record | None:
    """What an order means for a model that is at rest or in probation."""
    wanted = order.wanted
    if wanted == slot.current and not slot.damaged:
        unfit = _unfit_current(slot, memory)
        return None if unfit else _there_already(slot, order, now)
    blocked = _blocked(slot, order, memory)
    if blocked is None and _leads_back(slot, order, memory):
        detail = f"the server ordered {order.version}, which ran here before"
        return back(slot, Reason.OPERATOR_ROLLBACK, detail, at=now.wall, fault=False)
    if blocked is None:
        # a version on probation is judged before the next one comes, unless an operator insists
        waits = slot.state is S.PROBATION and (order.reason != "pin" or is_shadow(order))
        return None if waits else _fetch(slot, order, now)
    told = slot.state is S.FAILED and (slot.candidate, slot.attempt) == (wanted, order.attempt)
    if slot.state in (S.PROBATION, S.ROLLED_BACK) or told:
        return None
    return _fail(slot, wanted, *blocked, now, attempt=order.attempt)


def _leads_back(slot: ModelSlot, order: Order, memory: AntiRollback) -> bool:
    """Say whether an order asks for an older version that is still on the disk.

    It ran here before, so nothing of it is fetched or tested anew, and no probation is waited for:
    whoever orders it wants the device off the version that runs. If that fails, the model is in
    another state than these, and the version is fetched like any other.
    """
    if slot.state not in (S.HEALTHY, S.PROBATION) or slot.current is None or is_shadow(order):
        return False
    return order.counter < slot.current.counter and order.wanted in ways_back(slot, memory)


def _there_already(slot: ModelSlot, order: Order, now: Moment) -> Record | None:
    if slot.state not in (S.FAILED, S.ROLLED_BACK):
        return None
    if slot.failed_here(order.wanted, order.attempt):
        return None  # it failed, yet there was nothing to go back to
    if slot.watch:
        return None  # whether what was gone back to is well is not known yet
    if slot.last_healthy == slot.current or slot.state is S.ROLLED_BACK:
        return moved(
            slot,
            S.HEALTHY,
            at=now.wall,
            candidate=None,
            attempt=order.attempt,
            reason=None,
            detail=None,
        )
    return _fetch(slot, order, now)


def _blocked(slot: ModelSlot, order: Order, memory: AntiRollback) -> tuple[Reason, str] | None:
    forbidden = memory.forbids(slot.model, order.sha256, order.counter)
    if forbidden:
        return forbidden, _forbidden_words(order.wanted, forbidden)
    failure = slot.failed_here(order.wanted, order.attempt)
    if failure:
        detail = f"{order.version} failed here before ({failure.reason}); retry to try it again"
        return Reason.FAILED_HERE_BEFORE, detail
    return None


def _redirected(
    slot: ModelSlot, order: Order | None, memory: AntiRollback, now: Moment
) -> Record | None:
    """What an order means for a model whose candidate is on its way."""
    unfit = _unfit_current(slot, memory)
    if unfit and ways_back(slot, memory):
        # what runs must not run: that comes first, the candidate begins anew afterwards
        return forgotten(slot, at=now.wall)
    if order is None or (order.wanted == slot.current and not slot.damaged):
        return forgotten(slot, at=now.wall)
    if _has_nothing_to_try(slot, order, unfit):
        return forgotten(slot, at=now.wall)
    blocked = _blocked(slot, order, memory)
    if blocked:
        return _fail(slot, order.wanted, *blocked, now, attempt=order.attempt)
    if (slot.candidate, slot.attempt) != (order.wanted, order.attempt):
        return _fetch(slot, order, now)
    return _out_of_shadow(slot, now) if slot.state is S.SHADOWING and not is_shadow(order) else None


def _out_of_shadow(slot: ModelSlot, now: Moment) -> Record:
    """The candidate is ordered in earnest: it has passed its test, and only the switch is left."""
    return moved(
        slot,
        S.TESTING,
        at=now.wall,
        event="shadow_ended",
        about=slot.candidate,
        reason=None,
        detail=None,
    )


def _fetch(slot: ModelSlot, order: Order, now: Moment) -> Record:
    return moved(
        slot,
        S.FETCHING,
        at=now.wall,
        event="fetching",
        about=order.wanted,
        candidate=order.wanted,
        attempt=order.attempt,
        reason=None,
        detail=None,
        watch=None,
        tested=None,
    )


def _fail(
    slot: ModelSlot,
    version: Installed,
    reason: Reason,
    detail: str,
    now: Moment,
    *,
    attempt: int | None = None,
) -> Record:
    return moved(
        slot,
        S.FAILED,
        at=now.wall,
        event="failed",
        about=version,
        candidate=version,
        attempt=slot.attempt if attempt is None else attempt,
        reason=reason,
        detail=detail,
        watch=None,
    )
