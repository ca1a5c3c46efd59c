"""Hold models back: by the conditions of their orders, the device's own limits, tied models, and
where what is ordered to be tried in shadow cannot be."""

from __future__ import annotations

from dataclasses import replace

from pilotwave_agent.core import conditions, outcomes, ties
from pilotwave_agent.core.conditions import Hold
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.core.shadow import kept_out
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.effects import disk_budget
from pilotwave_agent.effects.tools import Tools
from pilotwave_agent.net.whole_file import missing_bytes
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import ModelState, Reason

# a model in one of these states can be held back; what has begun to switch is finished
_GATES = {
    ModelState.FETCHING: conditions.FETCH,
    ModelState.STAGED: conditions.CHANGE,
    ModelState.TESTING: conditions.CHANGE,
}


def hold_back(tools: Tools) -> None:
    """Hold the models back whose orders' conditions are not met, or that wait for a tied one, and
    say why."""
    state, notes = tools.journal.state, tools.notes
    ordered = [state.models[model] for model in state.orders if model in state.models]
    waiting = [slot for slot in ordered if slot.state in _GATES]
    holds = {slot.model: _by_conditions(tools, slot) for slot in waiting}
    held = {*notes.parked, *(model for model, no in holds.items() if no)}
    for slot in waiting:
        holds[slot.model] = holds[slot.model] or _by_ties(tools, slot, held)
    for slot in list(state.models.values()):
        no = holds.get(slot.model)
        if no is not None:
            notes.holds[slot.model] = no
            told = RefusedError(no.reason, no.sentence)
            tools.record(outcomes.blocked(slot, told, tools.now()))
            continue
        notes.holds.pop(slot.model, None)
        if slot.state in _GATES and (slot.reason or "").startswith("waiting_"):
            tools.record(outcomes.released(slot, tools.now()))


def held(tools: Tools, slot: ModelSlot) -> Hold | None:
    """Return what the order or the device's own limits hold back, None if nothing is."""
    return held_at(tools, slot, _GATES[slot.state])


def held_at(tools: Tools, slot: ModelSlot, gate: str) -> Hold | None:
    """Return what holds a model back at a gate, whatever its state."""
    order, own = tools.journal.state.orders.get(slot.model), tools.config.limits
    if order is None or not (order.conditions or own):
        return None
    world = _world(tools, slot)
    return conditions.hold(order.conditions, world, gate) or conditions.own_hold(own, world, gate)


def _by_conditions(tools: Tools, slot: ModelSlot) -> Hold | None:
    state = tools.journal.state
    others = [state.slot(name) for name in ties.mates(state, slot.model)]
    if ties.is_tested(slot) and any(ties.has_begun(other) for other in others):
        return None  # of models that change together, one has begun to
    words = kept_out(state, slot)
    return Hold(Reason.WAITING_CONDITION, words) if words else held(tools, slot)


def _by_ties(tools: Tools, slot: ModelSlot, held: set[str]) -> Hold | None:
    if slot.state is ModelState.FETCHING:
        return None
    words = ties.waits_for(tools.journal.state, slot, held)
    return Hold(Reason.WAITING_TOGETHER, f"waits: {words}") if words else None


def _world(tools: Tools, slot: ModelSlot) -> Environment:
    """Return the world as it was before this model's files began to fill the disk."""
    world = tools.look_around()
    if world.disk_free_mb is None or slot.candidate is None:
        return world
    try:
        files = tools.build(slot.candidate).variant.files
    except RefusedError:
        return world
    missing = missing_bytes(tools.disk, tools.layout.blobs, files)
    came = disk_budget.total_of(files) - missing
    return replace(world, disk_free_mb=world.disk_free_mb + (came >> 20))
