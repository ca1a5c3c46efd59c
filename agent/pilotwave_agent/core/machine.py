"""Decide what the device does next. No clock, no disk, no network: each rule can be read and tried.

`next_step` looks at the state and the moment and names one step. A `Move` only changes the journal;
the other steps have an effect, which `work` carries out and `outcomes` turns into a record. After a
crash the journal says where each model stood, and the same step is named again; every effect can be
repeated.

Each model goes its way alone: one that is held back, fails, or takes hours to fetch holds up no
other. Those that an order ties (`ties`) are tested once each is staged, switched once each has
passed, and taken back together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pilotwave_agent.core.records import Record, moved, removed
from pilotwave_agent.core.state import DeviceState, Failure, ModelSlot, Order, Probation, Telling
from pilotwave_agent.core.ties import falls_with, is_tested, waits_for
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.messages import Installed
from pilotwave_protocol.states import ModelState, Reason

S = ModelState
_ASK_EVERY_S = 0.2
_ASK_SLOWER = 0.1
TURN_S = 30.0
RESTING = frozenset({S.IDLE, S.HEALTHY, S.ROLLED_BACK, S.FAILED})
WATCHED = frozenset({S.PROBATION, S.ROLLED_BACK})
COMING = frozenset({S.FETCHING, S.VERIFYING, S.STAGED, S.TESTING})


@dataclass(frozen=True)
class Moment:
    """Now: `wall` in epoch seconds (never below the time floor), `uptime` in seconds of `boot`."""

    wall: float
    uptime: float
    boot: str


@dataclass(frozen=True)
class Rules:
    """Probation: how long (seconds), how often it is probed, how many probes in a row may fail."""

    probation_s: float = 60.0
    interval_s: float = 10.0
    failures: int = 3
    boots: int = 3


@dataclass(frozen=True)
class Memo:
    """What one process knows that need not outlive it.

    `parked` models have met a "no" that only time or the server can change; `probed` says when
    (uptime) each model was last probed, `asked` when its application was last asked whether it has
    taken the candidate, `fetched` when a fetch of it ended last: several are fetched in turn.
    """

    parked: frozenset[str] = frozenset()
    probed: Mapping[str, float] = field(default_factory=dict)
    asked: Mapping[str, float] = field(default_factory=dict)
    fetched: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """Journal this record; nothing else is to be done."""

    record: Record


@dataclass(frozen=True)
class Fetch:
    """Bring the candidate's files into the blob store; break off after `budget_s` seconds."""

    model: str
    budget_s: float | None = None


@dataclass(frozen=True)
class Stage:
    """Build the candidate's folder from blobs and prove it."""

    model: str


@dataclass(frozen=True)
class Trial:
    """Run the candidate's self-test."""

    model: str


@dataclass(frozen=True)
class Switch:
    """Make the candidate current and tell the application."""

    model: str


@dataclass(frozen=True)
class Confirm:
    """Ask whether the application has taken the candidate; `last` when its time is over."""

    model: str
    last: bool


@dataclass(frozen=True)
class Probe:
    """Ask whether the current version is well; `last` when probation would end with a pass."""

    model: str
    last: bool


@dataclass(frozen=True)
class Restore:
    """Make the first intact version of `ways` current and tell the application."""

    model: str
    ways: tuple[Installed, ...]


@dataclass(frozen=True)
class Remove:
    """Tell the application that a model goes, and take it off the device."""

    model: str


@dataclass(frozen=True)
class ClearAway:
    """Remove the links and files of a model that was taken off."""

    model: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Rest:
    """Nothing to do until the world changes."""


Step = (
    Move
    | Fetch
    | Stage
    | Trial
    | Switch
    | Confirm
    | Probe
    | Restore
    | Remove
    | ClearAway
    | Wait
    | Rest
)


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
            yield Move(switching(slot, now))
        else:
            yield Trial(slot.model)


def switching(slot: ModelSlot, now: Moment, **more: Any) -> Record:
    """Make the record with which the candidate's switch begins."""
    numbers = slot.numbered(slot.candidate, now.wall) if slot.candidate else slot.numbers
    return moved(
        slot,
        S.SWITCHING,
        at=now.wall,
        telling=None,
        numbers=[asdict(n) for n in numbers],
        **{"reason": None, **more},
    )


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


def settle(
    slot: ModelSlot, order: Order | None, memory: AntiRollback, now: Moment
) -> Record | None:
    """Hold a model against its order and what is remembered; None if it is on its way or there."""
    if slot.state in COMING:
        return _redirected(slot, order, memory, now)
    if slot.state not in RESTING and slot.state is not S.PROBATION:
        return None
    unfit = _unfit_current(slot, memory)
    if unfit and (slot.state is S.PROBATION or ways_back(slot, memory)):
        return back(slot, unfit[0], unfit[1], at=now.wall, fault=False)
    if order:
        wish = _wish(slot, order, memory, now)
        if wish:
            return wish
    if unfit and slot.state is not S.FAILED and slot.current:
        return _fail(slot, slot.current, unfit[0], _stays(unfit), now)
    return None if unfit else _allowed_again(slot, now)


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
        waits = slot.state is S.PROBATION and order.reason != "pin"
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
    if slot.state not in (S.HEALTHY, S.PROBATION) or slot.current is None:
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
    if _unfit_current(slot, memory) and ways_back(slot, memory):
        # what runs must not run: that comes first, the candidate begins anew afterwards
        return moved(slot, S.HEALTHY, at=now.wall, candidate=None, reason=None, detail=None)
    if order is None or (order.wanted == slot.current and not slot.damaged):
        state = S.HEALTHY if slot.current else S.IDLE
        return moved(slot, state, at=now.wall, candidate=None, reason=None, detail=None)
    blocked = _blocked(slot, order, memory)
    if blocked:
        return _fail(slot, order.wanted, *blocked, now, attempt=order.attempt)
    if (slot.candidate, slot.attempt) == (order.wanted, order.attempt):
        return None
    return _fetch(slot, order, now)


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
        records = [moved(slot, S.HEALTHY, at=at, candidate=None, reason=None, detail=None)]
        slot = replace(slot, state=S.HEALTHY, candidate=None)
    detail = "asked for at the device"
    return [*records, back(slot, Reason.LOCAL_ROLLBACK, detail, at=at, order=order)]
