"""Judge how the version does in use: a live metric of the devices that have it, against the same
group's devices that do not.

Which devices are in the open waves was drawn by lot (`waves.py`), so if the version is no worse,
the two arms differ by chance alone. Three tests share the gate's error:

1. devices by rank, each by its first window: few suffice where many are left on the old version;
2. devices by rank, each by the median of its first `_LATER` windows: finds what one window hides;
3. the sign of each window, whether it is worse than allowed against the device's own past: for
   groups that are too small for the first two (fewer than `_FEW` old devices). It holds if windows
   of one device come out above and below its past independently.

Each device has one voice. That few of them that lie turn no gate is `agreement.py`'s, and that the
first ones to speak are not all that is heard, `Evidence.heard`'s.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from pilotwave_server.rollouts.gates import alpha as shares
from pilotwave_server.rollouts.gates import mixture, ranks
from pilotwave_server.rollouts.gates.agreement import Agreement
from pilotwave_server.rollouts.gates.alpha import counted, lasting, percent
from pilotwave_server.rollouts.gates.change import ChangeWindow, units, voices, windows
from pilotwave_server.rollouts.gates.data import (
    Evidence,
    Sample,
    Slice,
    asks_a_person,
    may_decide,
    series,
)
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.policy import MetricGate

_FEW = 20
_LATER = 5
_FIRST_SHARE, _LATER_SHARE, _SIGN_SHARE = 0.6, 0.2, 0.2
_MIDDLE = 0.5  # as many windows above a device's past as below it


class Test(NamedTuple):
    """One test's e-value and the level that stops, as logs; `sign` says that it is the third."""

    evidence: float
    level: float
    sign: bool = False

    @property
    def margin(self) -> float:
        return self.evidence - self.level

    @property
    def doubts(self) -> bool:
        """Whether half of what stops is there: so much bad luck comes in 1 of 10 rollouts."""
        return self.evidence >= self.level / 2


@dataclass(frozen=True)
class View:
    """What the windows of the whole, or of one slice, come to."""

    tests: tuple[Test, ...]
    new: tuple[ChangeWindow, ...]
    old: tuple[ChangeWindow, ...]
    changes: bool
    worse_windows: int
    agreement: Agreement

    @property
    def devices(self) -> int:
        return len(self.agreement.new)

    @property
    def old_devices(self) -> int:
        return len(self.agreement.old)

    @property
    def fails(self) -> bool:
        """Whether the evidence is there, and enough devices show it."""
        return self.worst.margin >= 0 and self.agreement.stops

    @property
    def doubts(self) -> bool:
        return self.agreement.doubts or any(test.doubts for test in self.tests)

    @property
    def worst(self) -> Test:
        return max(self.tests, key=lambda test: test.margin)


def judge_metric(gate: MetricGate, evidence: Evidence) -> list[Verdict]:
    """Return the verdict on all devices, then one for each slice that has devices with it."""
    samples = evidence.samples.get(series(gate.metric, gate.statistic), ())
    if not any(sample.new for sample in samples):
        return [_nothing(gate, evidence, bool(samples))]
    samples = _in_one_slice(samples)
    parts = _parts(gate, samples)
    view = _view(gate, samples, shares.for_whole(gate.alpha, len(parts)))
    found = [_whole(gate, view, evidence)]
    each = shares.for_slice(gate.alpha, len(parts))
    heard, devices = _heard(view, evidence, gate), view.devices
    for part in parts:
        view = _view(gate, list(_of_slice(samples, *part)), each)
        found.append(_part(gate, part, view, may_fail=heard, of=devices))
    return found


def _part(gate: MetricGate, part: Slice, view: View, *, may_fail: bool, of: int) -> Verdict:
    word = Word.FAIL if view.fails and may_fail else Word.PASS
    told = _told(gate, view, word)
    if word is Word.FAIL and not may_decide(part, view.devices, of):
        word, told = Word.INCONCLUSIVE, asks_a_person(part, told)
    return Verdict(gate.name, word, told, _numbers(gate, view), "=".join(part))


def _in_one_slice(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Have each device stay in the slices that it was seen in first: facts are its own words, and
    none shall be in several slices, or make ever new ones, by changing them."""
    if not any(sample.slices for sample in samples):
        return samples
    first: dict[int, Mapping[str, str]] = {}
    return [s._replace(slices=first.setdefault(s.device, s.slices)) for s in samples]


def _parts(gate: MetricGate, samples: Sequence[Sample]) -> list[Slice]:
    """The slices that devices of the new arm are in: more than one, for the whole tells of one."""
    found: dict[Slice, set[int]] = defaultdict(set)
    for s in samples:
        for part in s.slices.items() if s.new else ():
            if part[0] in gate.slice_by:
                found[part].add(s.device)
    return sorted(part for part, devices in found.items() if len(devices) > 1)


def _of_slice(samples: Sequence[Sample], key: str, value: str) -> Iterator[Sample]:
    """Yield the slice's samples. Where few of its devices are on the old version, those of all are
    what it is compared with."""
    own = {s.device for s in samples if not s.new and s.slices.get(key) == value}
    for sample in samples:
        if sample.slices.get(key) == value or (not sample.new and len(own) < _FEW):
            yield sample


def rank_tests(alpha: float) -> Iterator[tuple[int, float]]:
    """Yield of the first two tests how many windows make a unit, and the log of what stops."""
    for size, share in ((1, _FIRST_SHARE), (_LATER, _LATER_SHARE)):
        yield size, -math.log(share * alpha)


def _view(gate: MetricGate, samples: Sequence[Sample], alpha: float) -> View:
    found, changes = windows(samples, worse=gate.worse)
    new, old = ([w for w in found if w.new is arm] for arm in (True, False))
    worse = sum(w.worse > gate.min_effect for w in new)
    agreement = Agreement(*voices(found, size=_LATER), gate.min_effect)
    tests = [
        Test(ranks.log_evidence(units(found, size=size, allowed=gate.min_effect)), level)
        for size, level in rank_tests(alpha)
    ]
    if changes and len(agreement.old) < _FEW:
        signs = mixture.log_evidence(worse, len(new), _MIDDLE)
        tests.append(Test(signs, mixture.threshold(_MIDDLE, _SIGN_SHARE * alpha), sign=True))
    return View(tuple(tests), tuple(new), tuple(old), changes, worse, agreement)


def _whole(gate: MetricGate, view: View, evidence: Evidence) -> Verdict:
    word, wait = _word(gate, view, evidence)
    sentence = _told(gate, view, word) + (f". {wait}" if wait else "")
    return Verdict(gate.name, word, sentence, _numbers(gate, view))


def _word(gate: MetricGate, view: View, evidence: Evidence) -> tuple[Word, str]:
    """Return the word, and what is waited for or was waited for in vain."""
    heard = _heard(view, evidence, gate)
    if view.fails and heard:
        return Word.FAIL, ""
    lacking = list(_lacking(gate, view))
    over = evidence.quiet_s > evidence.patience_s and not evidence.outcomes.under_way
    if lacking:
        short = " and ".join(lacking)
        if view.devices < gate.min_devices and over:
            told = f"The gate needs {short}, and no other device is still installing"
            return Word.INCONCLUSIVE, told
        return Word.WAIT, f"The gate needs {short}"
    if not heard:
        told = f"{view.devices} of the {evidence.took} devices with the version have reported"
        return Word.WAIT, f"{told}. The gate waits for more, so that the first few do not decide"
    if view.doubts:
        told = "This may still be chance"
        if view.worst.margin >= 0:
            told = "Too few devices show this to exclude false reports"
        enough = len(view.new) >= 4 * max(gate.min_windows, _LATER * view.devices)
        if over and enough:
            return Word.INCONCLUSIVE, f"{told}, and more windows will not settle it"
        return Word.WAIT, f"{told}. More windows or devices will tell"
    return Word.PASS, ""


def _heard(view: View, evidence: Evidence, gate: MetricGate) -> bool:
    name = series(gate.metric, gate.statistic)
    agree = view.agreement.worse if view.fails else 0
    return evidence.heard(name, devices=view.devices, agree=agree)


def _lacking(gate: MetricGate, view: View) -> Iterator[str]:
    if view.devices < gate.min_devices:
        yield f"{counted(gate.min_devices, 'device', 'devices')} (so far {view.devices})"
    if (count := _counted(gate, view)) < gate.min_windows:
        yield f"{counted(gate.min_windows, 'window', 'windows')} (so far {count})"


def _counted(gate: MetricGate, view: View) -> int:
    """Count the windows, but of one device no more than its part of those that are asked for."""
    most = -(-gate.min_windows // max(gate.min_devices, 1))
    return sum(min(count, most) for count in Counter(w.device for w in view.new).values())


def _nothing(gate: MetricGate, evidence: Evidence, old_reports: bool) -> Verdict:
    """There is no window of the new version to judge."""
    numbers = {"devices": 0, "windows": 0}
    outcomes = evidence.outcomes
    if evidence.in_use_s is None and outcomes.settled and not outcomes.under_way:
        told = f"no device kept the version, so none can report {gate.metric}"
        return Verdict(gate.name, Word.INCONCLUSIVE, told, numbers)
    if evidence.in_use_s is None:
        told = f"no device runs the version yet, so none can report {gate.metric}"
        return Verdict(gate.name, Word.WAIT, told, numbers)
    left = evidence.patience_s - evidence.in_use_s
    told = f"no device has reported {gate.metric} for the new version yet"
    if left > 0:
        told += f"; the first device has run it for {lasting(evidence.in_use_s)}"
        told += f", and the gate waits {lasting(left)} more"
        return Verdict(gate.name, Word.WAIT, told, numbers)
    also = "devices on the old version do" if old_reports else "nor for the old one"
    told += f", {lasting(evidence.in_use_s)} after the first device took it ({also})"
    told += ". Does the application record it under this name?"
    return Verdict(gate.name, Word.INCONCLUSIVE, told, numbers)


def _told(gate: MetricGate, view: View, word: Word) -> str:
    name = f"{gate.statistic} of {gate.metric}"
    devices = counted(view.devices, "device", "devices")
    allowed = f"the limit is {percent(gate.min_effect)}"
    if word is Word.FAIL and view.worst.sign:
        told = (
            f"{name}: {view.worse_windows} of {len(view.new)} windows on {devices} are worse than "
            f"before by more than {percent(gate.min_effect)}, typically by "
            f"{percent(_typical(view.new))}"
        )
        return f"{told}. {shares.stopped_by_chance(gate.alpha)}"
    than = "than before" if view.changes else "than usual"
    told = f"{name} is {_direction(_typical(view.new))} {than} on {devices} with the version"
    if view.old:
        told += f", {_direction(_typical(view.old))} on {view.old_devices} without it"
    else:
        told += ", and no device without it reports any"
    allowed += f"; {_liars(view, word)} would have to lie to change this"
    if word is Word.FAIL:
        return f"{told}; {allowed}. {shares.stopped_by_chance(gate.alpha)}"
    return f"{told}; {allowed}"


def _liars(view: View, word: Word) -> str:
    agreement = view.agreement
    count = agreement.to_pass if word is Word.FAIL else agreement.to_stop
    return f"at least {counted(count, 'device', 'devices')}"


def _typical(found: Sequence[ChangeWindow]) -> float:
    return median(w.change for w in found) if found else 0.0


def _direction(change: float) -> str:
    return f"{percent(abs(change))} {'worse' if change >= 0 else 'better'}"


def _numbers(gate: MetricGate, view: View) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "devices": view.devices,
        "windows": len(view.new),
        "devices_without": view.old_devices,
        "change": round(_typical(view.new), 4),
        "change_without": round(_typical(view.old), 4) if view.old else None,
        "allowed": gate.min_effect,
        "devices_worse": view.agreement.worse,
        "lies_to_stop": None if view.fails else view.agreement.to_stop,
        "lies_to_pass": view.agreement.to_pass,
        "evidence": float(f"{math.exp(min(view.worst.evidence, 27.0)):.4g}"),
        "stops_at": float(f"{math.exp(min(view.worst.level, 27.0)):.4g}"),
    }
    return numbers
