"""Carry out the machine's steps: each effect may be repeated after a crash at any point in it.

An effect changes files first and the journal after, so that the journal never says more than is
true. What the next step is, and what an outcome means, is `machine`'s and `outcomes`'s.
"""

from __future__ import annotations

from pilotwave_agent import version_folder
from pilotwave_agent.core import conditions, outcomes, ties
from pilotwave_agent.core.conditions import Hold
from pilotwave_agent.core.machine import (
    ClearAway,
    Confirm,
    Fetch,
    Memo,
    Moment,
    Move,
    Probe,
    Remove,
    Restore,
    Stage,
    Step,
    Switch,
    Trial,
    next_step,
)
from pilotwave_agent.core.records import moved
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.effects.base import rules_of
from pilotwave_agent.effects.fetch import Fetching
from pilotwave_agent.effects.remove import Removing
from pilotwave_agent.effects.try_version import Trying
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.runtimes import engines
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import ModelState, Reason

# a model in one of these states can be held back; what has begun to switch is finished
_GATES = {
    ModelState.FETCHING: conditions.FETCH,
    ModelState.STAGED: conditions.CHANGE,
    ModelState.TESTING: conditions.CHANGE,
}


class Effects(Fetching, Trying, Removing):
    """The hands of one process that holds the work lock."""

    def next(self) -> Step:
        """Name the next step."""
        self._hold_back()
        memo = Memo(
            frozenset({*self.parked, *self.holds}), self.probed, self.asked, dict(self.fetched)
        )
        return next_step(self.journal.state, self.now(), rules_of(self.config), memo)

    def _hold_back(self) -> None:
        """Hold the models back whose orders' conditions are not met, or that wait for a tied one,
        and say why."""
        state = self.journal.state
        ordered = [state.models[model] for model in state.orders if model in state.models]
        waiting = [slot for slot in ordered if slot.state in _GATES]
        holds = {slot.model: self._conditions_hold(slot) for slot in waiting}
        held = {*self.parked, *(model for model, no in holds.items() if no)}
        for slot in waiting:
            holds[slot.model] = holds[slot.model] or self._tie_holds(slot, held)
        for slot in list(state.models.values()):
            no = holds.get(slot.model)
            if no is not None:
                self.holds[slot.model] = no
                told = RefusedError(no.reason, no.sentence)
                self.record(outcomes.blocked(slot, told, self.now()))
                continue
            self.holds.pop(slot.model, None)
            if slot.state in _GATES and (slot.reason or "").startswith("waiting_"):
                self.record(outcomes.released(slot, self.now()))

    def _conditions_hold(self, slot: ModelSlot) -> Hold | None:
        state = self.journal.state
        others = [state.slot(name) for name in ties.mates(state, slot.model)]
        if ties.is_tested(slot) and any(ties.has_begun(other) for other in others):
            return None  # of models that change together, one has begun to
        return self._held(slot, state.orders[slot.model].conditions, _GATES[slot.state])

    def _tie_holds(self, slot: ModelSlot, held: set[str]) -> Hold | None:
        if slot.state is ModelState.FETCHING:
            return None
        words = ties.waits_for(self.journal.state, slot, held)
        return Hold(Reason.WAITING_TOGETHER, f"waits: {words}") if words else None

    def carry_out(self, step: Step) -> bool:
        """Do one step and journal its outcome; False if there is nothing to do now."""
        try:
            match step:
                case Move(record):
                    self.record(record)
                case Fetch(model, budget_s):
                    self._fetch(self._slot(model), budget_s)
                case Stage(model):
                    self._stage(self._slot(model))
                case Trial(model):
                    self._try(self._slot(model))
                case Switch(model):
                    self._switch(self._slot(model))
                case Confirm(model, last):
                    self._confirm(self._slot(model), last=last)
                case Probe(model, last):
                    self._probe(self._slot(model), last=last)
                case Restore(model, ways):
                    self._restore(self._slot(model), ways)
                case Remove(model):
                    self._remove(self._slot(model))
                case ClearAway(model):
                    self._clear_away(model)
                case _:
                    return False
        except RefusedError as no:
            self._park(step, no)
        return True

    def _park(self, step: Step, no: RefusedError) -> None:
        """Leave a model where it is, say why, and do not try it again in this process."""
        slot = self._slot(getattr(step, "model"))  # noqa: B009 - a Move or Wait refuses nothing
        self.parked[slot.model] = no
        if isinstance(step, ClearAway):
            return  # the model is gone already; its files go when the disk lets them
        self.record(outcomes.blocked(slot, no, self.now()))

    # --- at start and at the end

    def reconcile(self) -> None:
        """After a start: see that links and files are what the journal says."""
        for slot in list(self.journal.state.models.values()):
            if slot.state in (ModelState.SWITCHING, ModelState.ROLLING_BACK):
                continue  # between two versions; the step itself finishes it
            self.relink(slot)
            self._prepare_desks(slot.model)
            if slot.current is None or slot.damaged:
                continue
            if not version_folder.intact(
                self.disk, self.layout, slot.model, slot.current, deep=True
            ):
                self.record(
                    moved(
                        slot,
                        slot.state,
                        at=self.now().wall,
                        event="damaged",
                        about=slot.current,
                        damaged=True,
                        reason=Reason.BLOB_MISMATCH,
                        detail=f"{slot.current.version} is damaged on disk",
                    )
                )

    def clear(self) -> None:
        """Remove what no version of use needs; a disk that says no is asked another time."""
        try:
            version_folder.clear(self.disk, self.layout, self.journal.state)
            kept = set(self.disk.names(self.layout.blobs))
            engines.clear(self.config.data_dir / engines.FOLDER, kept)
        except OSError:
            return


def moment(floor: float, clock: Clock) -> Moment:
    """Return now; the wall clock is held against the time floor."""
    return Moment(max(clock.wall(), floor), clock.uptime(), clock.boot())
