"""Carry out the machine's steps: each effect may be repeated after a crash at any point in it.

An effect changes files first and the journal after, so that the journal never says more than is
true. What the next step is, and what an outcome means, is `machine`'s and `outcomes`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pilotwave_agent import version_folder
from pilotwave_agent.core import machine, outcomes, steps
from pilotwave_agent.core.records import Record, moved
from pilotwave_agent.core.steps import Memo, Step
from pilotwave_agent.core.ways_back import COMING, back, forgotten, ways_back
from pilotwave_agent.effects.compare import compare
from pilotwave_agent.effects.fetch import fetch
from pilotwave_agent.effects.holds import hold_back
from pilotwave_agent.effects.probe import probe
from pilotwave_agent.effects.remove import clear_away, remove
from pilotwave_agent.effects.restore import restore
from pilotwave_agent.effects.shadow import show_shadows
from pilotwave_agent.effects.spans import tell_span
from pilotwave_agent.effects.stage import prepare_desks, stage
from pilotwave_agent.effects.switch import confirm, switch
from pilotwave_agent.effects.tools import Tools
from pilotwave_agent.effects.trial import trial
from pilotwave_agent.runtimes import engines
from pilotwave_agent.self_update import slots
from pilotwave_agent.self_update.launch import INSTALLED
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState, Reason

_EFFECTS: Mapping[type, Callable[[Tools, Any], Record | None]] = {
    steps.Move: lambda tools, step: step.record,
    steps.Fetch: fetch,
    steps.Stage: stage,
    steps.Trial: trial,
    steps.Switch: switch,
    steps.Confirm: confirm,
    steps.Probe: probe,
    steps.Restore: restore,
    steps.Remove: remove,
    steps.ClearAway: clear_away,
    steps.Compare: compare,
}

_ON_TRIAL = frozenset({ModelState.SWITCHING, ModelState.PROBATION, ModelState.ROLLING_BACK})


def next_step(tools: Tools) -> Step:
    """Name the next step."""
    show_shadows(tools)
    hold_back(tools)
    notes = tools.notes
    held = frozenset({*notes.parked, *notes.holds})
    later = frozenset(notes.later)
    memo = Memo(held, notes.probed, notes.asked, dict(notes.fetched), later)
    return machine.next_step(tools.journal.state, tools.now(), tools.rules, memo)


def carry_out(tools: Tools, step: Step) -> None:
    """Do one step, other than a wait, and journal its outcome.

    A model whose step is refused stays where it is and is not tried again in this process.
    """
    model = getattr(step, "model", None)  # a Move names none
    if model not in tools.notes.traced:
        _do(tools, step)
        return
    start, candidate = time.time(), tools.slot(model).candidate
    record, error = _do(tools, step)
    about = {"device": tools.config.device, "version": candidate.version if candidate else ""}
    tell_span(
        tools.tell, step, start=start, end=time.time(), about=about, record=record, error=error
    )


def _do(tools: Tools, step: Step) -> tuple[Record | None, str]:
    """Return what was journalled, or the reason of a refusal."""
    try:
        record = _EFFECTS[type(step)](tools, step)
        tools.record(record)
        return record, ""
    except RefusedError as no:
        slot = tools.slot(getattr(step, "model"))  # noqa: B009 - a Move refuses nothing
        tools.notes.parked[slot.model] = no
        # of a model that is cleared away the journal knows nothing more
        if not isinstance(step, steps.ClearAway):
            tools.record(outcomes.blocked(slot, no, tools.now()))
        return None, str(no.reason)


def reconcile(tools: Tools) -> None:
    """After a start: see that links and files are what the journal says."""
    for slot in list(tools.journal.state.models.values()):
        if slot.state in (ModelState.SWITCHING, ModelState.ROLLING_BACK):
            continue  # between two versions; the step itself finishes it
        tools.relink(slot)
        prepare_desks(tools, slot.model)
        tried = slot.candidate if slot.state is ModelState.SHADOWING else None
        if tried and not tools.is_intact(slot, tried, deep=True):
            tools.record(outcomes.lost(slot, tools.now()))
            slot = tools.slot(slot.model)
        if slot.current is None or slot.damaged:
            continue
        if not tools.is_intact(slot, slot.current, deep=True):
            detail = f"{slot.current.version} is damaged on disk"
            why: Any = {"reason": Reason.BLOB_MISMATCH, "detail": detail, "damaged": True}
            now, about = tools.now().wall, slot.current
            tools.record(moved(slot, slot.state, at=now, event="damaged", about=about, **why))


def take_back_own(tools: Tools) -> None:
    """Begin the way back of an agent that was kept, and that its launcher starts no more."""
    slot = tools.slot(AGENT_MODEL)
    if slot.current is None or slot.state in _ON_TRIAL:
        return
    name = tools.layout.version(AGENT_MODEL, slot.current).name
    why = slots.given_up(tools.layout.root, name)
    if not why:
        return
    if slot.state in COMING:
        tools.record(forgotten(slot, at=tools.now().wall))
        slot = tools.slot(AGENT_MODEL)
    order = tools.journal.state.orders.get(AGENT_MODEL)
    tools.record(back(slot, Reason.PROBE_FAILED, why, at=tools.now().wall, order=order))


def _clear_own(tools: Tools) -> None:
    """Forget a new agent's trial once it is decided, note what may run instead of the one that was
    kept, and forget the programs of versions that are gone."""
    disk, layout, slot = tools.disk, tools.layout, tools.slot(AGENT_MODEL)
    if slot.state not in _ON_TRIAL:
        if slot.current is not None:
            ways = ways_back(slot, tools.journal.state.memory)
            behind = layout.version(AGENT_MODEL, ways[0]).name if ways else INSTALLED
            slots.keep(layout.root, layout.version(AGENT_MODEL, slot.current).name, behind)
        slots.end(disk, layout)
    slots.clear(disk, layout, disk.names(layout.versions(AGENT_MODEL)))


def clear_unused(tools: Tools) -> None:
    """Remove what no version of use needs; a disk that says no is asked another time."""
    try:
        version_folder.clear(tools.disk, tools.layout, tools.journal.state)
        _clear_own(tools)
        kept = set(tools.disk.names(tools.layout.blobs))
        engines.clear(tools.config.data_dir / engines.FOLDER, kept)
    except OSError:
        return
