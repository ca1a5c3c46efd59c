"""Say in words what a device should run of a model, and why not something else."""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_server.rollouts.assignments.resolve import Considered, ordered_off, resolve
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot


@dataclass(frozen=True)
class Why:
    """The answer in a sentence, and each candidate in the order in which they were tried."""

    sentence: str
    version: str | None
    variant: str | None
    candidates: tuple[tuple[Considered, str], ...]


def why(
    device: DeviceView, snapshot: FleetSnapshot, *, model: str, state: str, says: str = ""
) -> Why:
    """Explain `resolve`'s answer for one model. `says` is the device's own word, if it has one."""
    found = resolve(device, snapshot)
    steps = tuple(s for s in found.steps if s.candidate.model == model)
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
        sentence = f"{device.name} should run {chosen}, because {_asks(last)}"
    if state != "enrolled":
        sentence = f"{device.name} is {state}, so it gets nothing; if it were enrolled: {sentence}"
    won = last is not None and last.hold is None
    return Why(
        f"{sentence}. The device says: {says}" if says else sentence,
        version=last.candidate.version if last and won else None,
        variant=last.variant if last and won else None,
        candidates=told,
    )


def _told(step: Considered) -> str:
    asked = f"{_asks(step)} ({step.candidate.version})"
    if step.hold is not None:
        return f"{asked}: skipped, {step.hold.sentence}"
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
