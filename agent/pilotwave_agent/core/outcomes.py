"""Turn what came of a step into the record of it: pure, beside `machine`.

A "no" that may pass (a blob that does not come, a full disk) leaves the model where it is and says
why; a "no" of the version itself (its self-test, its probes) ends its try.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pilotwave_agent.core.records import Record, moved
from pilotwave_agent.core.state import Failure, ModelSlot, Order, Probation, Telling
from pilotwave_agent.core.steps import Moment, Rules
from pilotwave_agent.core.ways_back import back
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState, Reason

S = ModelState


def fetched(slot: ModelSlot, now: Moment) -> Record:
    """All of the candidate's files are in the blob store."""
    return moved(slot, S.VERIFYING, at=now.wall, reason=None, detail=None)


def blocked(slot: ModelSlot, no: RefusedError, now: Moment) -> Record | None:
    """The step cannot be done now; None if that is no news."""
    if (slot.reason, slot.detail) == (str(no.reason), no.sentence[:500]):
        return None
    # the same reason in other words is worth a line in the journal, but no event
    event = None if slot.reason == str(no.reason) else "blocked"
    return moved(
        slot,
        slot.state,
        at=now.wall,
        event=event,
        about=slot.candidate,
        reason=no.reason,
        detail=no.sentence,
    )


def released(slot: ModelSlot, now: Moment) -> Record:
    """What the order waited for has come."""
    return moved(slot, slot.state, at=now.wall, reason=None, detail=None)


def staged(slot: ModelSlot, now: Moment) -> Record:
    """The candidate's folder is complete and proven."""
    return moved(
        slot,
        S.STAGED,
        at=now.wall,
        event="staged",
        about=slot.candidate,
        reason=None,
        detail=None,
    )


def unstageable(slot: ModelSlot, no: RefusedError, now: Moment) -> Record:
    """A blob was not what it had been: it is gone now and must be fetched again."""
    return moved(slot, S.FETCHING, at=now.wall, reason=no.reason, detail=no.sentence)


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


def passed(slot: ModelSlot, figures: str, now: Moment) -> Record:
    """The self-test passed; from here on the switch will happen."""
    return switching(slot, now, event="tested", about=slot.candidate, detail=figures)


def tested(slot: ModelSlot, figures: str, now: Moment) -> Record:
    """The self-test passed; there is no switch yet: it waits for the models that change together
    with this one, or the candidate is to be tried in shadow."""
    return moved(
        slot,
        S.TESTING,
        at=now.wall,
        event="tested",
        about=slot.candidate,
        reason=None,
        detail=figures,
        tested=slot.candidate,
    )


def shadowing(slot: ModelSlot, now: Moment) -> Record:
    """The candidate passed its self-test, and is tried beside the version that serves."""
    return moved(
        slot,
        S.SHADOWING,
        at=now.wall,
        event="shadowing",
        about=slot.candidate,
        reason=None,
        detail=None,
    )


def telling(slot: ModelSlot, now: Moment, within_s: float) -> Record:
    """The application is about to hear of the candidate, in this boot; it may take `within_s`."""
    before = slot.telling
    boots = 1 if before is None else before.boots + (before.boot != now.boot)
    told = Telling(now.boot, now.uptime, within_s, boots=boots, begun=now.uptime)
    return moved(slot, slot.state, at=now.wall, telling=told)


def told(slot: ModelSlot, now: Moment, within_s: float) -> Record:
    """The application has heard of the candidate; its time to answer begins."""
    before = slot.telling or Telling(now.boot, now.uptime, within_s, begun=now.uptime)
    heard = replace(before, since=now.uptime, within_s=within_s, told=True)
    return moved(slot, slot.state, at=now.wall, telling=heard)


def failed(slot: ModelSlot, no: RefusedError, now: Moment) -> Record:
    """The candidate failed its self-test: the model stays what it is."""
    candidate = slot.candidate
    failure = None
    if candidate:
        failure = Failure(candidate.sha256, candidate.variant, slot.attempt, str(no.reason))
    return moved(
        slot,
        S.FAILED,
        at=now.wall,
        event="failed",
        about=candidate,
        failed=failure,
        reason=no.reason,
        detail=no.sentence,
    )


def lost(slot: ModelSlot, now: Moment) -> Record:
    """The candidate was damaged after its test: nothing of it is held against the version."""
    candidate = slot.candidate
    name = candidate.version if candidate else "the candidate"
    return moved(
        slot,
        S.FAILED,
        at=now.wall,
        event="failed",
        about=candidate,
        reason=Reason.BLOB_MISMATCH,
        detail=f"{name} was damaged on disk before the switch",
    )


def switched(slot: ModelSlot, now: Moment, restarts: int = 0) -> Record:
    """The candidate is current and the application knows."""
    previous = slot.current
    if slot.damaged or previous == slot.candidate:
        previous = slot.previous
    # a version that never proved itself is no place to go back to
    if previous != slot.last_healthy and slot.last_healthy not in (None, slot.candidate):
        previous = slot.last_healthy
    older = next((v for v in (slot.previous, slot.older) if v not in (previous, None)), None)
    return moved(
        slot,
        S.PROBATION,
        at=now.wall,
        event="switched",
        about=slot.candidate,
        current=slot.candidate,
        previous=previous,
        older=older if older != slot.candidate else None,
        candidate=None,
        damaged=False,
        watch=Probation(now.boot, now.uptime, restarts=restarts),
        telling=None,
        reason=None,
        detail=None,
    )


def not_taken(slot: ModelSlot, no: RefusedError, now: Moment) -> Record:
    """The application refused the candidate; the links may already name it."""
    candidate = slot.candidate
    failure = None
    if candidate:
        failure = Failure(candidate.sha256, candidate.variant, slot.attempt, str(no.reason))
    # as if it had run: the way back starts from the candidate and ends at what was current
    previous = slot.previous if slot.damaged or slot.current == candidate else slot.current
    return moved(
        slot,
        S.ROLLING_BACK,
        at=now.wall,
        failed=failure,
        current=candidate,
        previous=previous,
        older=slot.previous if slot.previous not in (previous, candidate) else slot.older,
        candidate=None,
        damaged=False,
        telling=None,
        reason=no.reason,
        detail=no.sentence,
    )


def probed(
    slot: ModelSlot,
    no: RefusedError | None,
    now: Moment,
    rules: Rules,
    *,
    last: bool,
    order: Order | None,
) -> Record | None:
    """A probe answered; None if nothing changes by it."""
    watch = slot.watch
    if watch is None:
        return None
    if no is None:
        return _well(slot, watch, now, last=last)
    failures = watch.failures + 1
    if failures >= rules.failures:
        times = f"{failures} times in a row: " if failures > 1 else ""
        again = "what was gone back to fails as well, " if slot.state is S.ROLLED_BACK else ""
        return back(slot, no.reason, again + times + no.sentence, at=now.wall, order=order)
    worse = replace(watch, failures=failures)
    if slot.state is S.ROLLED_BACK:  # its reason stays that of the way back
        return moved(slot, slot.state, at=now.wall, watch=worse)
    return moved(slot, slot.state, at=now.wall, watch=worse, reason=no.reason, detail=no.sentence)


def _well(slot: ModelSlot, watch: Probation, now: Moment, *, last: bool) -> Record | None:
    if slot.state is S.ROLLED_BACK:
        better = None if last else replace(watch, failures=0)
        return moved(slot, slot.state, at=now.wall, watch=better) if better != watch else None
    if last:
        return moved(
            slot,
            S.HEALTHY,
            at=now.wall,
            event="healthy",
            about=slot.current,
            last_healthy=slot.current,
            older=None,
            watch=None,
            reason=None,
            detail=None,
        )
    if not watch.failures:
        return None
    better = replace(watch, failures=0)
    return moved(slot, slot.state, at=now.wall, watch=better, reason=None, detail=None)


def behind(slot: ModelSlot, way: Installed) -> Installed | None:
    """Return what lies behind `way` once the model has gone back to it."""
    known = (slot.previous, slot.last_healthy, slot.older)
    failed = {(f.sha256, f.variant) for f in slot.failures}
    fit = (v for v in known if v and v not in (way, slot.current))
    return next((v for v in fit if (v.sha256, v.variant) not in failed), None)


def restored(slot: ModelSlot, way: Installed, note: str, now: Moment, restarts: int = 0) -> Record:
    """The model is back on `way`; `note` is what the application said, if it minds."""
    left = slot.current.version if slot.current else "nothing"
    detail = f"{left} to {way.version}: {slot.detail or slot.reason}{note}"
    left_behind = behind(slot, way)
    return moved(
        slot,
        S.ROLLED_BACK,
        at=now.wall,
        event="rolled_back",
        about=slot.current,
        current=way,
        # what was left is no place to go back to from the next version
        last_healthy=way,
        previous=left_behind,
        older=None,
        # with another way open, whether this one is well is worth knowing
        watch=Probation(now.boot, now.uptime, restarts=restarts) if left_behind else None,
        candidate=slot.current,
        attempt=0,
        damaged=False,
        reason=slot.reason or Reason.INTERNAL,
        detail=detail,
    )


def off(slot: ModelSlot, now: Moment) -> Record:
    """The agent is back on the program that was installed by hand, which is no version."""
    left = slot.current.version if slot.current else "nothing"
    return moved(
        slot,
        S.FAILED,
        at=now.wall,
        event="rolled_back",
        about=slot.current,
        current=None,
        previous=None,
        last_healthy=None,
        older=None,
        candidate=slot.current,
        damaged=False,
        reason=slot.reason or Reason.INTERNAL,
        detail=f"{left} to the agent that was installed: {slot.detail or slot.reason}",
    )


def nowhere_to_go(slot: ModelSlot, now: Moment) -> Record:
    """No version is left to go back to: the model stays on what it has, and says so."""
    detail = f"{slot.detail or slot.reason}; there is no other version to go back to"
    return moved(
        slot,
        S.FAILED,
        at=now.wall,
        event="failed",
        about=slot.current,
        candidate=slot.current,
        reason=slot.reason or Reason.INTERNAL,
        detail=detail,
    )
