"""Judge a candidate in shadow: each device compares it with the version in use, call by call.

What a device's windows say against the limit, and how devices add up, is `voices.py`'s. A device is
heard once it has compared as many calls as the wave asks for; one whose candidate keeps failing
need not, for it may never get there. Nobody meets the candidate meanwhile, and a FAIL says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, NamedTuple

from pilotwave_protocol import shadow
from pilotwave_server.rollouts.gates import alpha as shares
from pilotwave_server.rollouts.gates.alpha import counted, lasting, percent
from pilotwave_server.rollouts.gates.data import Evidence, Sample, series
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.gates.voices import BEYOND, HALVES, LOUDEST, SHARES, Voices, coins
from pilotwave_server.rollouts.policies.paired import (
    Disagreement,
    Errors,
    Latency,
    Limit,
    Memory,
    PairedGate,
    Score,
)

_MOST = 1e300  # what a device may say: more than any figure, and it can be rounded
_ENOUGH = 4  # times the calls that a device needs, after which more windows settle nothing
NO_USER = "No user has met the version"


class Heard(NamedTuple):
    """What one device reported: its coins, its windows and calls, how many of these went wrong, and
    its usual figure. `beyond`: what it has seen so far is over the limit, by chance or not."""

    coins: float
    windows: int
    calls: int
    bad: float
    usual: float
    beyond: bool


@dataclass(frozen=True)
class View:
    """The devices that are heard, and how many have begun to compare."""

    heard: Sequence[Heard]
    begun: int
    voices: Voices

    @property
    def calls(self) -> int:
        return sum(one.calls for one in self.heard)

    @property
    def doubts(self) -> bool:
        """Whether there is evidence against the candidate, or for half of the devices it is over
        the limit so far, however little they have seen."""
        beyond = sum(one.beyond for one in self.heard)
        return self.voices.doubts or 2 * beyond >= len(self.heard)


def judge_paired(gate: PairedGate, evidence: Evidence) -> list[Verdict]:
    """Return the verdict on all devices; a shadow wave is judged by no slice."""
    names = [series(metric, statistic) for metric, statistic in gate.limit.asks]
    if not any(evidence.samples.get(name) for name in names):
        return [_nothing(gate, evidence)]
    view = _view(gate, names, evidence)
    word, wait = _word(gate, view, evidence, names[0])
    sentence = _told(gate, view, word) + (f". {wait}" if wait else "")
    return [Verdict(gate.name, word, sentence, _numbers(gate, view))]


def _view(gate: PairedGate, names: Sequence[str], evidence: Evidence) -> View:
    by_device: dict[int, list[list[Sample]]] = defaultdict(lambda: [[] for _ in names])
    for index, name in enumerate(names):
        for sample in evidence.samples.get(name, ()):
            by_device[sample.device][index].append(sample)
    all_of_them = [_heard(gate.limit, found) for found in by_device.values()]
    early = isinstance(gate.limit, Errors)
    heard = [
        one
        for one in all_of_them
        if one.calls >= evidence.min_calls or (early and one.coins >= LOUDEST)
    ]
    level = -math.log(gate.alpha)
    return View(heard, len(by_device), Voices(sorted(one.coins for one in heard), level))


def _heard(limit: Limit, found: Sequence[Sequence[Sample]]) -> Heard:
    multiple = _multiple_of(limit)
    stakes = SHARES if isinstance(limit, Disagreement | Errors) else HALVES
    windows = [sample for samples in found for sample in samples]
    multiples = [[multiple(s) for s in samples] for samples in found]
    return Heard(
        coins=coins(multiples, stakes),
        windows=max(len(samples) for samples in found),
        calls=max(sum(s.calls for s in samples) for samples in found),
        bad=sum(_share(s) * s.calls for s in windows),  # of two metrics, either one
        usual=median(min(max(s.value, -_MOST), _MOST) for s in windows),
        beyond=any(of_one and mean(of_one) > 1 for of_one in multiples),
    )


def _multiple_of(limit: Limit) -> Callable[[Sample], float]:
    """Return how a window is weighed: as a multiple of what is allowed, on average at most 1."""
    match limit:
        case Disagreement(at_most=most) | Errors(at_most=most):
            return lambda s: _share(s) / most
        case Latency(min_effect=allowed):
            return lambda s: BEYOND * (s.value > 1 + allowed)
        case Memory(at_most=most):
            return lambda s: BEYOND * (s.value > most)
        case Score(min_effect=allowed, worse="higher"):
            return lambda s: BEYOND * (s.value > allowed)
        case Score(min_effect=allowed):
            return lambda s: BEYOND * (s.value < -allowed)


def _share(sample: Sample) -> float:
    return min(max(sample.value, 0.0), 1.0)


def _word(gate: PairedGate, view: View, evidence: Evidence, name: str) -> tuple[Word, str]:
    """Return the word, and what is waited for or was waited for in vain."""
    voices, devices = view.voices, len(view.heard)
    agree = voices.worse if voices.stops else 0
    heard = evidence.heard(name, devices=devices, agree=agree)
    if voices.stops and heard:
        return Word.FAIL, ""
    over = evidence.quiet_s > evidence.patience_s and not evidence.outcomes.under_way
    if devices < gate.min_devices:
        short = counted(gate.min_devices, "device", "devices")
        short += f" with {evidence.min_calls:,} compared calls each (so far {devices})"
        late = evidence.heard_s.get(name, 0.0) >= evidence.listen_s
        if view.begun < gate.min_devices and over and late:
            return Word.INCONCLUSIVE, f"The gate needs {short}, and no other device compares any"
        return Word.WAIT, f"The gate needs {short}"
    if not heard:
        told = f"{devices} of the {evidence.took} devices with the version have reported"
        return Word.WAIT, f"{told}. The gate waits for more, so that the first few do not decide"
    if view.doubts:
        few = voices.agree or voices.log_evidence >= voices.level
        told = "This may still be chance"
        if few:
            told = "Too few devices show this to exclude false reports"
        if over and all(one.calls >= _ENOUGH * evidence.min_calls for one in view.heard):
            return Word.INCONCLUSIVE, f"{told}, and more windows will not settle it"
        return Word.WAIT, f"{told}. More windows or devices will tell"
    return Word.PASS, ""


def _nothing(gate: PairedGate, evidence: Evidence) -> Verdict:
    """No device has reported a figure of the pair."""
    metric = gate.limit.asks[0][0]

    def verdict(word: Word, told: str) -> Verdict:
        return Verdict(gate.name, word, told, {"devices": 0, "windows": 0})

    outcomes = evidence.outcomes
    if evidence.in_use_s is None and outcomes.settled and not outcomes.under_way:
        told = f"no device keeps the version in shadow, so none can report {metric}"
        return verdict(Word.INCONCLUSIVE, told)
    if evidence.in_use_s is None:
        told = f"no device has the version in shadow yet, so none can report {metric}"
        return verdict(Word.WAIT, told)
    told = f"no device has reported {metric} yet"
    left = evidence.patience_s - evidence.in_use_s
    if left > 0:
        told += f"; the first one has had the version in shadow for {lasting(evidence.in_use_s)}"
        return verdict(Word.WAIT, f"{told}, and the gate waits {lasting(left)} more")
    told += f", {lasting(evidence.in_use_s)} after the first one had the version in shadow"
    dropped = evidence.samples.get(series(shadow.DROPPED, "mean"), ())
    busy = len({sample.device for sample in dropped if sample.value > 0})
    if busy:
        told += f". {counted(busy, 'device', 'devices')} dropped calls: busy, hot, low on battery"
        told += " or beyond the share of the processor that the policy allows"
    told += ". Does an application there take part, by LiveModel or its socket?"
    return verdict(Word.INCONCLUSIVE, told)


def _told(gate: PairedGate, view: View, word: Word) -> str:
    if not view.heard:
        begun = counted(view.begun, "device", "devices")
        return f"{begun} began to compare the version with the one in use"
    on = f"{counted(view.calls, 'call', 'calls')} on "
    on += counted(len(view.heard), "device", "devices")
    figure, limit = _figure_and_limit(gate.limit, view)
    count = view.voices.to_pass if word is Word.FAIL else view.voices.to_stop
    told = f"{figure} {on}; the limit is {limit}; at least "
    told += f"{counted(count, 'device', 'devices')} would have to lie to change this"
    if word is Word.FAIL:
        return f"{told}. {NO_USER}. {shares.stopped_by_chance(gate.alpha)}"
    return told


def _figure_and_limit(limit: Limit, view: View) -> tuple[str, str]:
    """Return what the candidate does (up to how many calls it was), and what it may do at most."""
    figure = _figure(limit, view)
    match limit:
        case Disagreement(at_most=most):
            return f"the answers differ in {percent(figure)} of", percent(most)
        case Errors(at_most=most):
            return f"the version fails in {percent(figure)} of", percent(most)
        case Latency(min_effect=allowed):
            way = "longer" if figure >= 0 else "shorter"
            return f"the version takes {percent(abs(figure))} {way} in", percent(allowed)
        case Score(min_effect=allowed):
            way = "lower" if figure < 0 else "higher"
            return f"the score is {abs(figure):.3g} {way} in", f"{allowed:g}"
        case Memory(at_most=most):
            return f"the version takes {figure:.3g} times the memory in", f"{most:g}"


def _figure(limit: Limit, view: View) -> float:
    """A share of all calls, or what is usual for the devices."""
    if isinstance(limit, Disagreement | Errors):
        return sum(one.bad for one in view.heard) / max(view.calls, 1)
    usual = median(one.usual for one in view.heard)
    return usual - 1 if isinstance(limit, Latency) else usual


def _numbers(gate: PairedGate, view: View) -> dict[str, Any]:
    voices, limit = view.voices, gate.limit
    allowed = limit.min_effect if isinstance(limit, Latency | Score) else limit.at_most
    return {
        "devices": len(view.heard),
        "devices_begun": view.begun,
        "windows": sum(one.windows for one in view.heard),
        "calls": view.calls,
        "change": float(f"{_figure(limit, view):.4g}") if view.heard else None,
        "allowed": allowed,
        "devices_worse": voices.worse,
        "lies_to_stop": None if voices.stops else voices.to_stop,
        "lies_to_pass": voices.to_pass,
        "evidence": float(f"{math.exp(min(voices.log_evidence, 27.0)):.4g}"),
        "stops_at": float(f"{math.exp(min(voices.level, 27.0)):.4g}"),
    }
