"""Which models change together, and what one of them waits for. Pure.

Models are independent unless an order says otherwise: `together` among its conditions names others
of its device. Who is tied to whom is symmetric and goes on from one to the next. Tied models are
tested once each of them is staged, and switched, one right after the other, once each has passed
its test; where one of them fails or is taken back, so are the others. A model that is named and not
ordered here ties nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pilotwave_agent.core.state import DeviceState, ModelSlot, Order
from pilotwave_protocol.states import ModelState

TOGETHER = "together"
S = ModelState
_STAGED = frozenset({S.STAGED, S.TESTING, S.SWITCHING})
_SETTLED = frozenset({S.PROBATION, S.HEALTHY, S.ROLLED_BACK, S.FAILED, S.IDLE})


def is_named(value: object) -> bool:
    """Say whether a condition names models, as it should."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def named_in(order: Order) -> frozenset[str]:
    """Return the models that an order names as tied to its own."""
    found = order.conditions.get(TOGETHER)
    return frozenset(found) if found is not None and is_named(found) else frozenset()


def mates(state: DeviceState, model: str) -> tuple[str, ...]:
    """Return the other ordered models that this one changes together with."""
    orders = state.orders
    if model not in orders or not any(TOGETHER in o.conditions for o in orders.values()):
        return ()
    found, more = {model}, [model]
    while more:
        name = more.pop()
        near = {m for m in named_in(orders[name]) if m in orders}
        near |= {m for m, order in orders.items() if name in named_in(order)}
        more += near - found
        found |= near
    return tuple(sorted(found - {model}))


def is_there(slot: ModelSlot, order: Order) -> bool:
    """Say whether a model runs what is ordered, and nothing else is on its way."""
    return slot.current == order.wanted and slot.state in _SETTLED and not slot.damaged


def has_begun(slot: ModelSlot) -> bool:
    """Say whether a model's switch has begun, and is not over yet."""
    return slot.state is S.SWITCHING


def is_tested(slot: ModelSlot) -> bool:
    """Say whether the candidate of a tied model has passed its test."""
    return slot.state is S.TESTING and slot.tested is not None and slot.tested == slot.candidate


def waits_for(state: DeviceState, slot: ModelSlot, held: Collection[str]) -> str | None:
    """Say what a tied model waits for before its next step (its test, or then its switch); None
    where it may go on. `held` are models that something else holds."""
    return next(_waits(state, slot, held), None)


def _waits(state: DeviceState, slot: ModelSlot, held: Collection[str]) -> Iterator[str]:
    others = [state.slot(name) for name in mates(state, slot.model)]
    if any(has_begun(other) for other in others) and is_tested(slot):
        return  # what has begun is finished
    for other in others:
        order = state.orders[other.model]
        named = f"{other.model} {order.version}"
        failure = other.failed_here(order.wanted, order.attempt)
        if failure:
            yield f"{named} failed here ({failure.reason}), and they change together"
        elif is_there(other, order):
            continue
        elif other.state not in _STAGED or other.candidate != order.wanted:
            yield f"{named} is not staged yet, and they change together"
        elif is_tested(slot) and not (is_tested(other) or has_begun(other)):
            yield f"{named} has not passed its test yet, and they change together"
        elif is_tested(slot) and other.model in held:
            yield f"{named} waits: {other.detail or other.reason}, and they change together"


def falls_with(state: DeviceState, slot: ModelSlot) -> str | None:
    """Say which tied model failed, so that this one goes back too; None where none did."""
    order = state.orders.get(slot.model)
    if order is None or slot.current != order.wanted:
        return None
    for name in mates(state, slot.model):
        other, ordered = state.slot(name), state.orders[name]
        failure = other.failed_here(ordered.wanted, ordered.attempt)
        if failure and other.current != ordered.wanted:
            words = f"{name} {ordered.version} failed here ({failure.reason})"
            return f"{words}, and they change together"
    return None
