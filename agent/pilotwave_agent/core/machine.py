"""Decide what the device does next. No clock, no disk, no network: each rule can be read and tried.

`next_step` looks at the state and the moment and names one of `steps`. A `Move` only changes the
journal; the others have an effect, which `effects` carries out and `outcomes` turns into a record.
After a crash the journal says where each model stood, and the same step is named again; every
effect can be repeated.

Each model goes its way alone: one that is held back, fails, or takes hours to fetch holds up no
other. Those that an order ties (`ties`) are tested once each is staged, switched once each has
passed, and taken back together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pilotwave_agent.core.compare import LATER_S, pending
from pilotwave_agent.core.outcomes import shadowing, switching
from pilotwave_agent.core.records import Record, moved, removed
from pilotwave_agent.core.settle import RESTING, settle
from pilotwave_agent.core.shadow import is_shadow
from pilotwave_agent.core.state import DeviceState, ModelSlot, Order, Probation, Telling
from pilotwave_agent.core.steps import (
    ClearAway,
    Compare,
    Confirm,
    Fetch,
    Memo,
    Moment,
    Move,
    Probe,
    Remove,
    Rest,
    Restore,
    Rules,
    Stage,
    Step,
    Switch,
    Trial,
    Wait,
)
from pilotwave_agent.core.ties import falls_with, is_tested, waits_for
from pilotwave_agent.core.ways_back import back, ways_back
from pilotwave_protocol.states import ModelState, Reason

S = ModelState
_ASK_EVERY_S = 0.2
_ASK_SLOWER = 0.1
TURN_S = 30.0
WATCHED = frozenset({S.PROBATION, S.ROLLED_BACK})


def next_step(state: DeviceState, now: Moment, rules: Rules, memo: Memo | None = None) -> Step:
    """Name the one next step for the whole device."""
    memo = memo or Memo()
    for step in _steps(state, now, rules, memo):
        return step
    return Rest()


def _steps(state: DeviceState, now: Moment, rules: Rules, memo: Memo) -> Iterator[Step]:
    slots = [state.slot(name) for name in sorted({*state.models, *state.orders})]
    free = [s for s in slots if s.model not in memo.parked and s.model not in state.leaving]
    yield from (ClearAway(m) for m in sorted(state.leaving) if m not in memo.parked)
    yield from _half_done(free, state, now)
    asking = {s.model: _ask_due(s.telling, memo.asked.get(s.model)) for s in free if _told(s, now)}
    for model, due in asking.items():
        telling = state.slot(model).telling
        if telling and due <= now.uptime:
            yield Confirm(model, last=now.uptime >= telling.since + telling.within_s)
    for slot in slots:
        if slot.state is S.ROLLED_BACK and slot.watch and slot.reason == Reason.TOGETHER_ROLLBACK:
            continue  # first it is seen to be well on what it went back to
        record = _with_others(state, slot, now) or settle(
            slot, state.orders.get(slot.model), state.memory, now
        )
        if record:
            yield Move(record)
    yield from _leaving(free, state, now)
    on_watch = [slot for slot in free if slot.state in WATCHED and slot.watch]
    dues = {slot.model: _due(slot, now, rules, memo) for slot in on_watch}
    yield from _probes(state, on_watch, dues, now, rules)
    all_dues = [*asking.values(), *dues.values()]
    budget = min((due - now.uptime for due in all_dues), default=None)
    yield from _after_staging(state, free, now, memo)
    fetching = sorted(free, key=lambda slot: memo.fetched.get(slot.model, 0.0))
    yield from _before_staging(fetching, budget, now, expired=now.wall >= state.orders_expire)
    if budget is not None:
        yield Wait(max(budget, 0.0))
    else:
        yield from _comparisons(state, free, memo)


def _leaving(slots: list[ModelSlot], state: DeviceState, now: Moment) -> Iterator[Step]:
    """What is ordered off the device, and what was never installed and is ordered no more. A model
    between two versions is finished first, one whose candidate is on its way has dropped it."""
    for slot in slots:
        if slot.model in state.orders or slot.model not in state.models:
            continue
        at_rest = slot.state in RESTING or slot.state is S.PROBATION
        if slot.model in state.remove and at_rest:
            yield Remove(slot.model)
        # one that failed, or had numbers with serving layers, is remembered
        elif slot == ModelSlot(slot.model, attempt=slot.attempt, since=slot.since):
            yield Move(removed(slot, at=now.wall))


def _before_staging(
    slots: list[ModelSlot], budget: float | None, now: Moment, *, expired: bool
) -> Iterator[Step]:
    turn = [slot for slot in slots if slot.state is S.FETCHING]
    if len(turn) > 1:
        budget = TURN_S if budget is None else min(budget, TURN_S)
    for slot in slots:
        if slot.state is S.FETCHING and not expired:
            yield Fetch(slot.model, budget)
        elif slot.state is S.FETCHING and slot.reason != Reason.DIRECTIVE_EXPIRED:
            yield Move(_too_late(slot, now))
        elif slot.state is S.VERIFYING:
            yield Stage(slot.model)


def _comparisons(state: DeviceState, slots: list[ModelSlot], memo: Memo) -> Iterator[Step]:
    """What is compared when all else is at rest: no model is on its way or on probation."""
    asked = [slot for slot in slots if slot.state in RESTING and pending(state, slot)]
    yield from (Compare(slot.model) for slot in asked if slot.model not in memo.later)
    if asked:
        yield Wait(LATER_S)


def _too_late(slot: ModelSlot, now: Moment) -> Record:
    detail = "the directive that ordered it has expired; a newer one is needed"
    return moved(
        slot,
        slot.state,
        at=now.wall,
        event="blocked",
        about=slot.candidate,
        reason=Reason.DIRECTIVE_EXPIRED,
        detail=detail,
    )


def _half_done(slots: list[ModelSlot], state: DeviceState, now: Moment) -> Iterator[Step]:
    """What must be finished first: a model between two versions."""
    for slot in slots:
        if slot.state is S.SWITCHING and not _told(slot, now):
            yield Switch(slot.model)
        if slot.state is S.ROLLING_BACK:
            order = state.orders.get(slot.model)
            ways = ways_back(slot, state.memory)
            # where one of them is ordered, that one
            first = [way for way in ways if order is not None and way == order.wanted]
            yield Restore(slot.model, tuple(dict.fromkeys([*first, *ways])))


def _told(slot: ModelSlot, now: Moment) -> bool:
    """Say whether the application has heard of the candidate; what it heard, a restart ends."""
    telling = slot.telling
    return slot.state is S.SWITCHING and bool(telling and telling.told and telling.boot == now.boot)


def _ask_due(telling: Telling | None, asked: float | None) -> float:
    """Return the uptime at which an application is to be asked next: often at first, then less."""
    if telling is None or asked is None or asked < telling.since:
        return 0.0
    due = asked + max(_ASK_EVERY_S, (asked - telling.since) * _ASK_SLOWER)
    return min(due, max(telling.since + telling.within_s, asked + _ASK_EVERY_S))


def _after_staging(
    state: DeviceState, slots: list[ModelSlot], now: Moment, memo: Memo
) -> Iterator[Step]:
    for slot in slots:
        if slot.state not in (S.STAGED, S.TESTING) or waits_for(state, slot, memo.parked):
            continue
        if slot.state is S.STAGED:
            yield Move(moved(slot, S.TESTING, at=now.wall))
        elif is_tested(slot):
            in_shadow = is_shadow(state.orders.get(slot.model))
            yield Move(shadowing(slot, now) if in_shadow else switching(slot, now))
        else:
            yield Trial(slot.model)


def _with_others(state: DeviceState, slot: ModelSlot, now: Moment) -> Record | None:
    """Take a model back whose tied one failed."""
    if slot.state not in (S.PROBATION, S.HEALTHY) or not ways_back(slot, state.memory):
        return None
    why = falls_with(state, slot)
    if why is None:
        return None
    return back(slot, Reason.TOGETHER_ROLLBACK, why, at=now.wall, fault=False)


def _probes(
    state: DeviceState,
    on_watch: list[ModelSlot],
    dues: Mapping[str, float],
    now: Moment,
    rules: Rules,
) -> Iterator[Step]:
    for slot in on_watch:
        watch = slot.watch
        if watch is None:
            continue
        if watch.boot != now.boot:
            yield Move(_rebooted(slot, watch, state.orders.get(slot.model), now, rules))
        elif dues[slot.model] <= now.uptime:
            yield Probe(slot.model, last=now.uptime >= watch.started + rules.probation_s)


def _due(slot: ModelSlot, now: Moment, rules: Rules, memo: Memo) -> float:
    """Return the uptime at which a model in probation is to be probed next."""
    if slot.watch is None or slot.watch.boot != now.boot:
        return now.uptime
    started = slot.watch.started
    end = started + rules.probation_s
    base = max(started, memo.probed.get(slot.model, started))
    due = base + rules.interval_s
    return min(due, end) if base < end or base == started else due


def _rebooted(
    slot: ModelSlot, watch: Probation, order: Order | None, now: Moment, rules: Rules
) -> Record:
    """Start the probation anew in a new boot; a model that takes the machine down fails it."""
    boots = watch.boots + 1
    if boots <= rules.boots:
        fresh = Probation(now.boot, now.uptime, boots=boots)
        return moved(slot, slot.state, at=now.wall, watch=fresh)
    detail = f"the device restarted {watch.boots} times during probation"
    return back(slot, Reason.PROBE_FAILED, detail, at=now.wall, order=order)
