"""Choose a device's variant of a version: of those that fit, the first in the publisher's order, or
the one that devices of its class measured to be best. Pure, beside `resolve`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.messages.check_in import ModelReport
from pilotwave_protocol.messages.facts import AGENT_COMPARES
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_protocol.trust import Fit, variant_fits
from pilotwave_server.devices.facts import allows_unsafe
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.choice.classes import class_of
from pilotwave_server.rollouts.choice.decide import Choice, Option, admitted, decide
from pilotwave_server.rollouts.choice.trial import Trials, own_failures, voices_of
from pilotwave_server.rollouts.policies.choose import Choose

NO_CHOICE = Choice(None)
_OF_SELFTESTS = frozenset(str(r) for r in Reason if r.name.startswith("SELFTEST_"))


@dataclass(frozen=True)
class Misfit:
    """Why no variant of a version fits: the one reason of all, and each in words."""

    reason: Reason
    sentence: str


def fitting(facts: Mapping[str, Scalar], release: Released) -> list[Variant] | Misfit:
    """Return the variants that fit, in the publisher's order, at least one; or why none does."""
    unsafe, misfits, found = allows_unsafe(facts), list[Fit](), list[Variant]()
    for variant in release.variants:
        fit = variant_fits(variant, facts, model=release.model, allow_unsafe=unsafe)
        if fit.ok:
            found.append(variant)
        else:
            misfits.append(fit)
    if found:
        return found
    reasons = {fit.reason for fit in misfits}
    reason = reasons.pop() if len(reasons) == 1 else None
    named = f"no variant of {release.model} {release.version} fits"
    said = "; ".join(fit.sentence for fit in misfits)
    return Misfit(reason or Reason.DOES_NOT_FIT, f"{named}: {said}")


def measured_choice(
    device: str,
    facts: Mapping[str, Scalar],
    fits: Sequence[Variant],
    release: Released,
    choose: Choose | None,
    trials: Trials,
    failed_now: Collection[str] = (),
) -> Choice:
    """Return what measurements choose of the variants that fit; nothing where none is asked. Of
    `failed_now` the trials do not know yet."""
    if choose is None or len(fits) < 2 or release.model == AGENT_MODEL:
        return NO_CHOICE
    of, sha256 = class_of(facts), release.sha256
    voices = voices_of(trials.get((of, sha256), ()))
    failed = own_failures(trials, device, of, sha256).union(failed_now)
    return decide(device, options_of(fits, release), voices, choose, failed)


def failed_choice(
    report: ModelReport, groups: frozenset[int], snapshot: FleetSnapshot
) -> tuple[Released, str] | None:
    """Return of which version the report says that the self-test of a variant failed, where devices
    of these groups get theirs by measurement, and which variant it was."""
    tried = report.candidate
    if tried is None or report.state is not ModelState.FAILED:
        return None
    release = snapshot.versions.get((report.model, tried.version))
    if release is None or release.sha256 != tried.sha256 or report.reason not in _OF_SELFTESTS:
        return None
    by = snapshot.choose_of(groups, report.model, tried.version)
    if by is None or not any(v.name == tried.variant for v in release.variants):
        return None
    return release, tried.variant


def has_another(device: DeviceView, report: ModelReport, snapshot: FleetSnapshot) -> bool:
    """Say whether the device is told another variant in place of the one that the report says
    failed there: then the version has not failed on it so far."""
    found = failed_choice(report, device.groups, snapshot)
    if found is None:
        return False
    release, tried = found
    fits = fitting(device.facts, release)
    if isinstance(fits, Misfit):
        return False
    by = snapshot.choose_of(device.groups, release.model, release.version)
    choice = measured_choice(device.name, device.facts, fits, release, by, snapshot.trials, {tried})
    failed = own_failures(snapshot.trials, device.name, class_of(device.facts), release.sha256)
    return choice.variant is not None and choice.variant not in failed | {tried}


def by_whom(device: DeviceView, snapshot: FleetSnapshot, release: Released, said: str) -> str:
    """Return what was `said` of a choice, with the group by which the variant was chosen,
    where another one of the device's would choose by something else."""
    if not said:
        return said
    (first, by), *rest = snapshot.choosers(device.groups, release.model, release.version)
    if all(choose == by for _, choose in rest):
        return said
    return f"group {snapshot.group_name(first)} chooses by {by.minimise}: {said}"


def options_of(fits: Sequence[Variant], release: Released) -> list[Option]:
    """Return variants with what the publisher signed of each: `<variant>.top1` of the metrics."""
    return [Option(v.name, v.size, _signed(v.name, release)) for v in fits]


def _signed(variant: str, release: Released) -> dict[str, float]:
    found = {}
    for name, text in release.metrics.items():
        of, _, figure = name.rpartition(".")
        if of == variant:
            try:
                found[figure] = float(text)
            except ValueError:
                continue
    return found


def comparable(facts: Mapping[str, Scalar], release: Released, choose: Choose) -> tuple[str, ...]:
    """Return the variants that devices like this one compare; none where nothing is to choose, or
    its agent does not know how."""
    fits = fitting(facts, release)
    if isinstance(fits, Misfit) or facts.get(AGENT_COMPARES) is not True:
        return ()
    names = tuple(o.name for o in admitted(options_of(fits, release), choose))
    return names if len(names) > 1 and release.model != AGENT_MODEL else ()


def still_to_compare(
    device: str, facts: Mapping[str, Scalar], release: Released, snapshot: FleetSnapshot
) -> dict[str, object] | None:
    """Return what the device is asked to measure of a version, as its entry's condition says it."""
    of = class_of(facts)
    trials = [t for t in snapshot.trials.get((of, release.sha256), ()) if t.device == device]
    if not any(t.found is None for t in trials):
        return None
    return {"of": of, "variants": sorted(t.variant for t in trials)}
