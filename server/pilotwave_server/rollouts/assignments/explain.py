"""Say in words what a device should run of a model, and why not something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pilotwave_server.rollouts.assignments.resolve import (
    Considered,
    Hold,
    Wait,
    ordered_off,
    resolve,
)
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.leases import DID_NOT, EXPIRED


@dataclass(frozen=True)
class Turn:
    """What came of a device's turn in a rollout: an outcome of `rollouts/leases.py`."""

    outcome: str
    reason: str | None = None
    detail: str | None = None


NO_TURNS: Mapping[int, Turn] = {}
_NOT_LET_IN = (Wait.NEEDS_LEASE, Wait.ROLLOUT_PAUSED, Wait.NOT_IN_SHADOW)


@dataclass(frozen=True)
class Why:
    """The answer in a sentence, and each candidate in the order in which they were tried."""

    sentence: str
    version: str | None
    variant: str | None
    candidates: tuple[tuple[Considered, str], ...]


def why(
    device: DeviceView,
    snapshot: FleetSnapshot,
    *,
    model: str,
    state: str,
    says: str = "",
    turns: Mapping[int, Turn] = NO_TURNS,
) -> Why:
    """Explain `resolve`'s answer for one model. `says` is the device's own word, if it has one;
    `turns` are those that it had in rollouts (by row number)."""
    found = resolve(device, snapshot)
    mine = (s for s in found.steps if s.candidate.model == model)
    steps = tuple(_with_turn(device, s, turns) for s in mine)
    told = tuple((step, _told(step)) for step in steps)
    last = steps[-1] if steps else None
    if last is None and model in found.remove:
        sentence = f"{device.name} is told to remove {model}: an operator ordered it"
    elif last is None and model in ordered_off(device, snapshot):
        sentence = (
            f"{device.name} keeps {model} although an operator ordered its removal: its agent"
            " cannot remove models (update it) or may not (allow_removal in its settings)"
        )
    elif last is None:
        sentence = f"{device.name} keeps its {model}: no pin, rollout or baseline names a version"
    elif last.hold is not None:
        sentence = (
            f"{device.name} keeps its {model}: no version that it is asked to run may be offered"
        )
    else:
        chosen = f"{model} {last.candidate.version} (variant {last.variant})"
        does = "run" if last.beside is None else "try"
        beside = f" in shadow beside {last.beside}" if last.beside else ""
        sentence = f"{device.name} should {does} {chosen}{beside}, because {_asks(last)}"
        sentence = ". ".join(filter(None, [sentence, last.numbers]))
    if state != "enrolled":
        sentence = f"{device.name} is {state}, so it gets nothing; if it were enrolled: {sentence}"
    won = last is not None and last.hold is None
    if not says:  # its own word names the failure too
        failed = (s.hold for s in steps if s.hold and s.hold.reason is Wait.FAILED_HERE)
        sentence = ". ".join([sentence, *(hold.sentence for hold in failed)])
    return Why(
        f"{sentence}. The device says: {says}" if says else sentence,
        version=last.candidate.version if last and won else None,
        variant=last.variant if last and won else None,
        candidates=told,
    )


def _with_turn(device: DeviceView, step: Considered, turns: Mapping[int, Turn]) -> Considered:
    """Name what came of the device's turn, where the rollout lets it in no more because of that."""
    rollout, hold = step.candidate.rollout, step.hold
    turn = None if rollout is None else turns.get(rollout.row_id)
    if rollout is None or hold is None or hold.reason not in _NOT_LET_IN or turn is None:
        return step
    if turn.outcome in DID_NOT:
        told = turn.detail or turn.reason
        failed = f"{rollout.version} failed on {device.name}" + (f" ({told})" if told else "")
        again = f"pilotwave devices retry {device.name} --model {rollout.model}"
        sentence = f"{failed}, so {rollout.id} offers it no more; to let it try again: `{again}`"
        return replace(step, hold=Hold(Wait.FAILED_HERE, sentence))
    if turn.outcome == EXPIRED and hold.reason is Wait.NEEDS_LEASE:
        sentence = f"{_EXPIRED.get(turn.reason or '', _TRIES_AGAIN)}; {hold.sentence}"
        return replace(step, hold=Hold(Wait.NEEDS_LEASE, sentence))
    return step


_TRIES_AGAIN = "it may try again"
_EXPIRED = {
    "lease_expired": "it was let in before and did not begin in time",
    "left": "it was let in before and left the version during probation",
}


def _told(step: Considered) -> str:
    asked = f"{_asks(step)} ({step.candidate.version})"
    if step.hold is not None:
        return f"{asked}: skipped, {step.hold.sentence}"
    if step.beside is not None:
        return f"{asked}: chosen in shadow beside {step.beside}, variant {step.variant}"
    return f"{asked}: chosen, variant {step.variant}"


def _asks(step: Considered) -> str:
    candidate = step.candidate
    if candidate.reason == "pin":
        return "an operator pinned it"
    if candidate.rollout is not None and candidate.back:
        rollout = candidate.rollout
        return f"rollout {rollout.id}, of which it took {rollout.version}, was rolled back"
    if candidate.rollout is not None:
        return f"rollout {candidate.rollout.id} brings it to group {candidate.group}"
    return f"it is the baseline of group {candidate.group}"
