"""How what a wave's gates look at went, and their evidence against what stops: for people.

Nothing is stored for it: each moment is judged again, by the windows that had ended by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median, quantiles
from typing import NamedTuple

from sqlalchemy.orm import Session

from pilotwave_server.rollouts.engine.evidence import load
from pilotwave_server.rollouts.gates import alpha as shares
from pilotwave_server.rollouts.gates.data import Evidence, Sample, series
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.policies.paired import (
    Disagreement,
    Errors,
    Latency,
    Memory,
    PairedGate,
    Score,
)
from pilotwave_server.rollouts.policies.policy import InstallGate, MetricGate
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.tables import RolloutRow

MOST, FEWEST = 24, 4
_WINDOWS = 250_000  # are judged for one gate: of more windows there are fewer moments


class Moment(NamedTuple):
    """What was known `at` a time (seconds since 1970): of the devices with the version the median
    (`new`) and the middle half, of those without it, or of the version in use, the median (`old`),
    what is `allowed`, and the e-value."""

    at: float
    new: float | None
    middle: tuple[float, float] | None
    old: float | None
    allowed: float | None
    evidence: float | None


@dataclass(frozen=True)
class GateCourse:
    """`looks_at` names the metric with its statistic. `unit` is `%` or empty; `is_change`: figures
    are changes against what the same devices had before. `stops_at` is the e-value that stops."""

    gate: str
    looks_at: str
    unit: str
    is_change: bool
    is_paired: bool
    stops_at: float
    moments: tuple[Moment, ...]


class _Scale(NamedTuple):
    """How figures are told: in `unit`, with `allowed` on top of the old ones, which are `in_use`
    where both versions are on the same device. A share of calls `of_pairs` has no old one."""

    unit: str
    allowed: float | None
    is_change: bool = False
    in_use: float | None = None
    of_pairs: bool = False


def courses_of_gates(session: Session, rollout: RolloutRow, *, now: datetime) -> list[GateCourse]:
    """Return a course for each gate of the open wave of which windows have come. As many statements
    as gates need to be judged once."""
    policy = stored_policy(rollout.document)
    if rollout.wave < 0:
        return []
    evidence = load(session, rollout, policy, now)
    gates = policy.waves[rollout.wave].gates
    found = (course_of(g, evidence) for g in gates if not isinstance(g, InstallGate))
    return [course for course in found if course is not None]


def course_of(gate: MetricGate | PairedGate, evidence: Evidence) -> GateCourse | None:
    """Return how it went; None where no window of the version has come."""
    names = _names(gate)
    samples = [s for name in names for s in evidence.samples.get(name, ())]
    if not any(s.new for s in samples):
        return None
    scale = _scale(gate, samples)
    whole = _whole(gate)
    stops_at, moments = 1.0, []
    for at in _times(samples):
        known = {n: [s for s in evidence.samples.get(n, ()) if s.at <= at] for n in names}
        numbers = judge(whole, replace(evidence, samples=known))[0].numbers
        stops_at = numbers.get("stops_at", stops_at)
        moments.append(_moment(at, known[names[0]], scale, numbers.get("evidence")))
    paired = isinstance(gate, PairedGate)
    name = gate.name
    return GateCourse(name, names[0], scale.unit, scale.is_change, paired, stops_at, tuple(moments))


def _names(gate: MetricGate | PairedGate) -> list[str]:
    if isinstance(gate, PairedGate):
        return [series(metric, statistic) for metric, statistic in gate.limit.asks]
    return [series(gate.metric, gate.statistic)]


def _whole(gate: MetricGate | PairedGate) -> MetricGate | PairedGate:
    """The gate without its slices, which have a part of its error."""
    if isinstance(gate, PairedGate) or not gate.slice_by:
        return gate
    return replace(gate, slice_by=(), alpha=shares.for_whole(gate.alpha, 1))


def _scale(gate: MetricGate | PairedGate, samples: Sequence[Sample]) -> _Scale:
    if isinstance(gate, MetricGate):
        known = sum(bool(s.reference) for s in samples)
        if 2 * known <= len(samples):
            return _Scale("", None)
        return _Scale("%", (-100 if gate.worse == "lower" else 100) * gate.min_effect, True)
    match gate.limit:
        case Disagreement(at_most=most) | Errors(at_most=most):
            return _Scale("%", 100 * most, of_pairs=True)
        case Latency(min_effect=allowed):
            return _Scale("%", 100 * allowed, True, in_use=0.0)
        case Memory(at_most=most):
            return _Scale("", most - 1, in_use=1.0)
        case Score(min_effect=allowed, worse=worse):
            return _Scale("", allowed if worse == "higher" else -allowed, in_use=0.0)


def _times(samples: Sequence[Sample]) -> list[float]:
    """Moments at equal distances, the last one when the last window ended."""
    first, last = min(s.at for s in samples), max(s.at for s in samples)
    count = min(MOST, max(FEWEST, 2 * _WINDOWS // len(samples)))
    step = (last - first) / count
    return [first + n * step for n in range(1, count)] + [last] if step else [last]


def _moment(at: float, known: Sequence[Sample], scale: _Scale, evidence: float | None) -> Moment:
    """Each device counts with its latest window."""
    latest = {(s.device, s.new): _figure(s, scale) for s in known}
    new, old = (
        [v for (_, is_new), v in latest.items() if is_new is arm and v is not None]
        for arm in (True, False)
    )
    usual = median(old) if old else scale.in_use
    against = 0.0 if scale.of_pairs else usual
    allowed = None
    if against is not None and scale.allowed is not None:
        allowed = against + scale.allowed
    return Moment(at, median(new) if new else None, _middle(new), usual, allowed, evidence)


def _middle(figures: Sequence[float]) -> tuple[float, float] | None:
    if len(figures) < 2:
        return (figures[0], figures[0]) if figures else None
    low, _, high = quantiles(figures, n=4, method="inclusive")
    return low, high


def _figure(sample: Sample, scale: _Scale) -> float | None:
    if not scale.is_change:
        return 100 * sample.value if scale.unit else sample.value
    if scale.in_use is not None:
        return 100 * (sample.value - 1)
    if not sample.reference:
        return None
    return 100 * (sample.value - sample.reference) / abs(sample.reference)
