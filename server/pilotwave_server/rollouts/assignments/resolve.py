"""Decide what a device should run, and say why. Pure: no clock, no database, no settings.

Per model the candidates are, in this order: the device's pin, the rollouts to its groups (newest
first; `RunningRollout.offers` says whether one has reached it), the baselines of its groups (newest
first; a group's older baselines follow its newest), and what it ran before a rollout that is being
rolled back (or what that rollout's group runs), wherever the device is now. The first candidate
that may be offered and has a variant that fits wins; which variant, `variants.py` says. Each one
passed over leaves a `Hold`. A rollout that a device tries in shadow wins only beside what wins
behind it, which goes on serving there. Where none is left, the model is absent from the set, which
tells the device to keep what it has.

A device whose key two machines use is offered nothing. May not be offered: unknown, denied by an
operator, yanked by its publisher, below the model's floor, or quarantined for a group that the
device is in. This comes before everything, pins too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.figures import COMPARE
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.messages.directive import MAX_ENTRIES, Entry
from pilotwave_protocol.messages.facts import AGENT_MANIFEST, AGENT_SHADOWS, AGENT_TIES
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.shadow import SHADOW
from pilotwave_protocol.states import Reason
from pilotwave_server.devices.conflicts import SENTENCE
from pilotwave_server.devices.tables import PRIME
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.capacity import left_out
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot, RunningRollout
from pilotwave_server.rollouts.assignments.variants import (
    Misfit,
    by_whom,
    fitting,
    measured_choice,
    still_to_compare,
)
from pilotwave_server.rollouts.choice.trial import NO_TRIALS, Trials
from pilotwave_server.rollouts.policies.choose import Choose
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.rollouts.waves import position


class Wait(str, Enum):
    """Why a device is not offered a version that is meant for it yet. Stable, as `Reason` is."""

    WAVE_NOT_OPEN = "wave_not_open"
    ROLLOUT_PAUSED = "rollout_paused"
    NEEDS_LEASE = "needs_lease"
    FAILED_HERE = "failed_here"
    TOO_MANY_MODELS = "too_many_models"
    DEVICE_CONFLICT = "device_conflict"
    AGENT_TOO_OLD = "agent_too_old"
    NOT_IN_SHADOW = "not_in_shadow"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Hold:
    """A "no": why a candidate was passed over."""

    reason: Reason | Wait
    sentence: str


@dataclass(frozen=True)
class Candidate:
    """A version that something asks this device to run: `reason` is pin, rollout or baseline.

    With `back`, the rollout takes the device back to it.
    """

    reason: str
    model: str
    version: str
    group: str | None = None
    rollout: RunningRollout | None = None
    back: bool = False
    together: tuple[str, ...] = ()


@dataclass(frozen=True)
class Considered:
    """One candidate and what became of it: held, or (with its variant) chosen. `numbers` are the
    measurements by which the variant was, if it was by any. With `beside`, it is only tried in
    shadow, beside that version."""

    candidate: Candidate
    hold: Hold | None
    variant: str | None = None
    numbers: str = ""
    beside: str | None = None


@dataclass(frozen=True)
class Resolution:
    """The device's full set, per model how it came about, the chosen candidate last, and the models
    that it is told to remove."""

    entries: tuple[Entry, ...]
    steps: tuple[Considered, ...] = field(repr=False)
    remove: tuple[str, ...] = ()


def resolve(device: DeviceView, snapshot: FleetSnapshot) -> Resolution:
    """Return what `device` should run under `snapshot`."""
    models = sorted({*device.pins, *snapshot.rollouts, *snapshot.baselines})
    steps: list[Considered] = []
    entries: list[Entry] = []
    for model in models:
        chain = tuple(explain(device, snapshot, model))
        steps += chain
        if chain and chain[-1].hold is None:
            entries.append(_entry(device, snapshot, chain[-1]))
    found = _within_capacity(device, entries, steps)
    return replace(found, remove=tuple(removed(device, snapshot))[:MAX_ENTRIES])


def removed(device: DeviceView, snapshot: FleetSnapshot) -> Iterator[str]:
    """Yield the models that the device is told to remove: those ordered off it that nothing asks it
    to run, not even what may not be offered now."""
    if device.conflict or device.facts.get("removes_models") is not True:
        return  # an older agent would refuse the whole directive
    for model in ordered_off(device, snapshot):
        if next(candidates(device, snapshot, model), None) is None:
            yield model


def ordered_off(device: DeviceView, snapshot: FleetSnapshot) -> Iterator[str]:
    """Yield the models that a removal takes off the device's groups or the device itself."""
    for model, removal in snapshot.removals.items():
        if device.name in removal.devices or not removal.groups.isdisjoint(device.groups):
            yield model


def _within_capacity(
    device: DeviceView, entries: list[Entry], steps: list[Considered]
) -> Resolution:
    """Hold what the device's directive has no room for."""
    out = left_out(entries, device.facts)
    if not out:
        return Resolution(tuple(entries), tuple(steps))

    def held(step: Considered) -> Considered:
        sentence = out.get(step.candidate.model)
        if sentence is None or step.hold is not None:
            return step
        return Considered(step.candidate, Hold(Wait.TOO_MANY_MODELS, sentence))

    kept = tuple(e for e in entries if e.model not in out)
    return Resolution(kept, tuple(held(step) for step in steps))


def explain(device: DeviceView, snapshot: FleetSnapshot, model: str) -> Iterator[Considered]:
    """Yield a model's candidates in order, up to and including the one that wins."""
    yield from _explained(device, snapshot, list(candidates(device, snapshot, model)))


def _explained(
    device: DeviceView, snapshot: FleetSnapshot, asking: Sequence[Candidate]
) -> Iterator[Considered]:
    for n, candidate in enumerate(asking):
        step = _considered(device, snapshot, candidate)
        if step.hold is None and _only_tries(device, candidate):
            rest = _explained(device, snapshot, asking[n + 1 :])
            step = _beside(device, step, next((s for s in rest if s.hold is None), None))
        yield step
        if step.hold is None:
            return


def _considered(device: DeviceView, snapshot: FleetSnapshot, candidate: Candidate) -> Considered:
    hold = (
        _conflict(device)
        or _does_not_offer(device, candidate)
        or may_not_be_offered(device, snapshot, candidate)
    )
    if hold is not None:
        return Considered(candidate, hold)
    release = snapshot.versions[candidate.model, candidate.version]
    fits = _fitting(device, release)
    if isinstance(fits, Hold):
        return Considered(candidate, fits)
    by = snapshot.choose_of(device.groups, candidate.model, candidate.version)
    choice = measured_choice(device.name, device.facts, fits, release, by, snapshot.trials)
    numbers = by_whom(device, snapshot, release, choice.sentence)
    return Considered(candidate, None, choice.variant or fits[0].name, numbers)


def _only_tries(device: DeviceView, candidate: Candidate) -> bool:
    """Say whether the device is to try the candidate in shadow, if anything."""
    rollout = candidate.rollout
    known = device.bucket, device.groups, device.name
    if rollout is None or candidate.back or rollout.offers(*known, device.leases):
        return False
    return rollout.tries(*known)


def _beside(device: DeviceView, step: Considered, otherwise: Considered | None) -> Considered:
    """Let the device try the candidate in shadow, beside what it is told to run `otherwise`."""
    serves = None if otherwise is None else otherwise.candidate.version
    hold = not_in_shadow(device, step.candidate, serves)
    return replace(step, beside=serves) if hold is None else Considered(step.candidate, hold)


def not_in_shadow(device: DeviceView, candidate: Candidate, serves: str | None) -> Hold | None:
    """Say why the device does not try the candidate beside `serves`, or None where it does."""
    rollout = candidate.rollout
    if rollout is None or rollout.shadow is None:
        return None
    tried = f"{rollout.id} tries {rollout.model} {rollout.version} in shadow"
    if candidate.model == AGENT_MODEL:
        return Hold(Wait.NOT_IN_SHADOW, f"{tried}, which no agent can do with itself")
    if device.facts.get(AGENT_SHADOWS) is not True:
        no = f"{tried}, and the agent there cannot do that: update the agent"
        return Hold(Wait.NOT_IN_SHADOW, no)
    if serves is None or serves == rollout.version:
        no = f"{tried}, and this device is told to run no other version that it could be beside"
        return Hold(Wait.NOT_IN_SHADOW, no)
    let_in = dict(device.shadows)
    if rollout.row_id in let_in:
        ran = let_in[rollout.row_id]
        no = f"{tried}; this device was let in while it ran {ran}, and is told to run {serves}"
        return None if ran == serves else Hold(Wait.NOT_IN_SHADOW, no)
    if rollout.state is RolloutState.PAUSED:
        return Hold(Wait.ROLLOUT_PAUSED, f"{rollout.id} is paused, and this device had not started")
    if not rollout.shadow.lets_in:
        return Hold(Wait.WAVE_NOT_OPEN, _outside(device, rollout))
    no = f"{tried}; this device joins once it reports {serves} as healthy, and its turn has come"
    return Hold(Wait.NOT_IN_SHADOW, no)


def candidates(device: DeviceView, snapshot: FleetSnapshot, model: str) -> Iterator[Candidate]:
    """Yield what asks for a version of `model` on this device, the strongest first."""
    pin = device.pins.get(model)
    if pin is not None:
        yield Candidate("pin", model, pin)
    for rollout in snapshot.rollouts.get(model, ()):
        left = rollout.state is RolloutState.ABORTED and rollout.row_id not in device.leases
        gone = left or rollout.takes_back
        if rollout.group_id in device.groups and not gone:
            group = snapshot.group_name(rollout.group_id)
            yield Candidate("rollout", model, rollout.version, group, rollout)
    for baseline in snapshot.baselines.get(model, ()):
        if baseline.group_id in device.groups:
            yield Candidate(
                "baseline", model, baseline.version, baseline.group, together=baseline.together
            )
    yield from _ways_back(device, snapshot, model)


def _conflict(device: DeviceView) -> Hold | None:
    """What one of two machines would be told, the other would hear: neither is told anything."""
    if not device.conflict:
        return None
    return Hold(Wait.DEVICE_CONFLICT, SENTENCE.format(device=device.name))


def _ways_back(device: DeviceView, snapshot: FleetSnapshot, model: str) -> Iterator[Candidate]:
    """Yield where rollouts take this device back to that are rolled back."""
    took = dict(device.took)
    for rollout in snapshot.rollouts.get(model, ()):
        if not rollout.takes_back or rollout.row_id not in took:
            continue
        groups_own = [
            b.version for b in snapshot.baselines.get(model, ()) if b.group_id == rollout.group_id
        ]
        group = snapshot.group_name(rollout.group_id)
        for version in dict.fromkeys([took[rollout.row_id], *groups_own]):
            if version is not None and version != rollout.version:
                yield Candidate("rollout", model, version, group, rollout, back=True)


def _does_not_offer(device: DeviceView, candidate: Candidate) -> Hold | None:
    """Say what the device waits for, or None where its turn has come (or nothing is in waves)."""
    known, rollout = (device.bucket, device.groups, device.name), candidate.rollout
    if rollout is None or candidate.back or rollout.offers(*known, device.leases):
        return None
    let_in = rollout.row_id in dict(device.shadows)
    if rollout.tries(*known) and (let_in or not rollout.includes(*known)):
        return None
    if not rollout.includes(*known):
        return Hold(Wait.WAVE_NOT_OPEN, _outside(device, rollout))
    if rollout.state is RolloutState.PAUSED:
        return Hold(Wait.ROLLOUT_PAUSED, f"{rollout.id} is paused, and this device had not started")
    sentence = f"{rollout.id} limits how many devices change at once; this one waits its turn"
    return Hold(Wait.NEEDS_LEASE, sentence)


def _outside(device: DeviceView, rollout: RunningRollout) -> str:
    place = 100 * position(rollout.multiplier, rollout.offset, device.bucket) / PRIME
    if not rollout.open:
        return f"no wave of {rollout.id} is open yet; this device is due at {place:.1f} %"
    reached = 100 * rollout.threshold / PRIME
    return (
        f"{rollout.id} has opened {rollout.open}, up to {reached:.1f} % of the group; "
        f"this device is due when the rollout reaches {place:.1f} %"
    )


def may_not_be_offered(
    device: DeviceView, snapshot: FleetSnapshot, candidate: Candidate
) -> Hold | None:
    """Say why this version may not be offered to this device at all, or None."""
    named = f"{candidate.model} {candidate.version}"
    version = snapshot.versions.get((candidate.model, candidate.version))
    if version is None:
        return Hold(Reason.TARGET_UNKNOWN, f"{named} is not in the registry")
    if version.yanked is not None:
        return Hold(Reason.YANKED, f"{named} was yanked by its publisher: {version.yanked}")
    if version.denied is not None:
        return Hold(Reason.DENIED, f"{named} was denied by an operator: {version.denied}")
    floor = snapshot.floors.get(candidate.model, 0)
    if version.counter < floor or not version.listed:
        sentence = f"{named} (release counter {version.counter}) is below the floor {floor}"
        return Hold(Reason.BELOW_FLOOR, f"{sentence} that its publisher set")
    return _quarantine(device, snapshot, candidate)


def _quarantine(device: DeviceView, snapshot: FleetSnapshot, candidate: Candidate) -> Hold | None:
    for q in snapshot.quarantines:
        if (q.model, q.version) != (candidate.model, candidate.version):
            continue
        if q.group_id is None or q.group_id in device.groups:
            whom = "the fleet" if q.group_id is None else snapshot.group_name(q.group_id)
            named = f"{candidate.model} {candidate.version}"
            return Hold(Reason.QUARANTINED, f"{named} is quarantined for {whom}: {q.reason}")
    return None


def choose_variant(
    device: DeviceView, release: Released, choose: Choose | None = None, trials: Trials = NO_TRIALS
) -> tuple[Variant | None, Hold | None]:
    """Return the variant that fits: the first in the publisher's order, or the one that these
    trials choose; or why none fits."""
    fits = _fitting(device, release)
    if isinstance(fits, Hold):
        return None, fits
    choice = measured_choice(device.name, device.facts, fits, release, choose, trials)
    return next((v for v in fits if v.name == choice.variant), fits[0]), None


def _fitting(device: DeviceView, release: Released) -> list[Variant] | Hold:
    """Return the variants that fit, in the publisher's order; or why none may be offered.

    An agent refuses its whole directive over one manifest that it cannot read.
    """
    reads = device.facts.get(AGENT_MANIFEST, 1)
    if not isinstance(reads, int) or reads < release.schema:
        return Hold(Wait.AGENT_TOO_OLD, _too_old(release, reads))
    fits = fitting(device.facts, release)
    return Hold(fits.reason, fits.sentence) if isinstance(fits, Misfit) else fits


def _too_old(release: Released, reads: Scalar) -> str:
    return (
        f"{release.model} {release.version} has a manifest of schema {release.schema}, and the "
        f"agent there reads schema {reads}: update the agent first"
    )


def _entry(device: DeviceView, snapshot: FleetSnapshot, step: Considered) -> Entry:
    chosen = step.candidate
    release = snapshot.versions[chosen.model, chosen.version]
    rollout = chosen.rollout
    return Entry(
        model=chosen.model,
        version=chosen.version,
        target=release.target,
        sha256=release.sha256,
        length=release.length,
        counter=release.counter,
        variant=step.variant or "",
        reason=chosen.reason,
        rollout=None if rollout is None else rollout.id,
        attempt=device.attempts.get(chosen.model, 0),
        conditions=_conditions(device, snapshot, step),
    )


def _conditions(device: DeviceView, snapshot: FleetSnapshot, step: Considered) -> dict[str, Any]:
    """What the device has to wait for, and what it is to compare. An agent that does not know ties
    is not told of them: it changes nothing before all of its order is there, which ties
    everything. What is only tried changes nothing, so no tie holds it."""
    chosen = step.candidate
    if chosen.back:
        return {}
    told: dict[str, Any] = {} if chosen.rollout is None else dict(chosen.rollout.conditions)
    if chosen.together:
        told["together"] = list(chosen.together)
    if device.facts.get(AGENT_TIES) is not True or step.beside is not None:
        told.pop("together", None)
    release = snapshot.versions[chosen.model, chosen.version]
    if (wish := still_to_compare(device.name, device.facts, release, snapshot)) is not None:
        told[COMPARE] = wish
    if step.beside is not None and chosen.rollout is not None and chosen.rollout.shadow:
        told[SHADOW] = dict(chosen.rollout.shadow.condition)
    return told
