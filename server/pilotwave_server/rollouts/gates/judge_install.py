"""Judge how the version does on the devices that begin with it: the share that fails.

A device counts from its begin, not from its outcome, and as good until it failed. Failures come
fast and good health comes slowly, so of the devices that have *settled* too many failed at first,
whatever the version is worth; of those that have *begun*, never.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace

from pilotwave_server.rollouts.gates import alpha as shares
from pilotwave_server.rollouts.gates import mixture
from pilotwave_server.rollouts.gates.alpha import counted, percent
from pilotwave_server.rollouts.gates.data import (
    BY_FACT,
    Evidence,
    Outcomes,
    Slice,
    asks_a_person,
    may_decide,
)
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.policy import InstallGate

# An e-value from which on a wave does not pass by itself. Bad luck goes so far in at most 1 of 5
# rollouts, and one dead canary of two goes further. Of many slices, one is always unlucky: there
# it lies just below what stops.
_DOUBT = math.log(5)
_SLICE_DOUBT = math.log(10)
_MOST_REASONS = 3


def judge_install(gate: InstallGate, evidence: Evidence) -> list[Verdict]:
    """Return the verdict on all devices, then one for each slice of which a device has settled."""
    mine = {p: o for p, o in evidence.slices.items() if _counts(gate, p, o)}
    whole = shares.for_whole(gate.alpha, len(mine))
    each = shares.for_slice(gate.alpha, len(mine))
    found = [_judge(gate, evidence.outcomes, whole, reasons=evidence.reasons)]
    for part, outcomes in sorted(mine.items()):
        if outcomes.settled:
            told = _judge(gate, outcomes, each, slice="=".join(part))
            alone = may_decide(part, outcomes.begun, evidence.outcomes.begun)
            found.append(told if alone else _for_people(part, told))
    return found


def _counts(gate: InstallGate, part: Slice, outcomes: Outcomes) -> bool:
    """Say whether the slice is asked for; one that a single device put itself into is none."""
    lone = part[0].startswith(BY_FACT) and outcomes.begun < 2
    return part[0] in gate.slice_by and not lone


def _for_people(part: Slice, told: Verdict) -> Verdict:
    if told.word is not Word.FAIL:
        return told
    return replace(told, word=Word.INCONCLUSIVE, sentence=asks_a_person(part, told.sentence))


def _judge(
    gate: InstallGate,
    outcomes: Outcomes,
    alpha: float,
    *,
    reasons: Mapping[str, int] | None = None,
    slice: str | None = None,
) -> Verdict:
    bound = gate.max_failure_rate
    evidence = mixture.log_evidence(outcomes.bad, outcomes.begun, bound)
    level = mixture.threshold(bound, alpha)
    numbers = {
        "failed": outcomes.failed,
        "silent": outcomes.silent,
        "healthy": outcomes.healthy,
        "under_way": outcomes.under_way,
        "bound": bound,
        "alpha": alpha,
        "evidence": _plain(evidence),
        "stops_at": _plain(level),
        "at_most": mixture.upper_bound(outcomes.bad, outcomes.settled, alpha),
        "lies_to_stop": _lies_to_stop(outcomes, bound, level),
        "lies_to_pass": _lies_to_pass(outcomes, bound, level),
    }
    doubt = level - _SLICE_DOUBT if slice else min(_DOUBT, level)
    word = _word(outcomes, evidence, level, doubt)
    sentence = _say(word, gate, outcomes, numbers["at_most"], reasons or {})
    return Verdict(gate.name, word, sentence, numbers, slice)


def _lies_to_stop(outcomes: Outcomes, bound: float, level: float) -> int:
    """So many devices of those in good health would have to report a failure to have a FAIL."""
    return max(0, _least_failures(outcomes.begun, bound, level) - outcomes.bad)


def _lies_to_pass(outcomes: Outcomes, bound: float, level: float) -> int:
    """So many devices that failed would have to report good health to undo a FAIL; where it is
    none, so many of those in good health would have failed if it is none by their lies."""
    least = _least_failures(outcomes.begun, bound, level)
    return abs(outcomes.bad - least) + (outcomes.bad >= least)


def _least_failures(begun: int, bound: float, level: float) -> int:
    """Of so many devices, how many failures stop; of too few, one more than there are."""
    found = range(begun + 1)
    return bisect_left(found, True, key=lambda bad: _fails(bad, begun, bound, level))


def _fails(bad: int, begun: int, bound: float, level: float) -> bool:
    return mixture.log_evidence(bad, begun, bound) >= level


def _plain(log_value: float) -> float:
    """Return the e-value itself, held within what people and JSON can read."""
    return float(f"{math.exp(min(log_value, 27.0)):.4g}")


def _word(outcomes: Outcomes, evidence: float, level: float, doubt: float) -> Word:
    if evidence >= level:
        return Word.FAIL
    if not outcomes.settled:
        return Word.WAIT
    if evidence < doubt:
        return Word.PASS
    return Word.WAIT if outcomes.under_way else Word.INCONCLUSIVE


def _say(
    word: Word, gate: InstallGate, outcomes: Outcomes, at_most: float, reasons: Mapping[str, int]
) -> str:
    going = f"{counted(outcomes.under_way, 'device is', 'devices are')} still installing"
    if not outcomes.settled:
        return f"no device has finished yet; {going}"
    begun = counted(outcomes.begun, "device", "devices")
    told = f"{outcomes.bad} of {begun} failed{_why(outcomes, reasons)}; the limit is "
    told += percent(gate.max_failure_rate)
    match word:
        case Word.FAIL:
            return f"{told}. {shares.stopped_by_chance(gate.alpha)}"
        case Word.PASS:
            healthy = counted(outcomes.healthy, "device is", "devices are")
            if at_most > 0.995:
                return f"{told}. {healthy} healthy: too few to tell"
            return f"{told}. {healthy} healthy: the failure rate is below {percent(at_most)}"
        case Word.WAIT:
            return f"{told}. This may still be chance; {going}"
        case _:
            return f"{told}. This may be chance, and no device is still installing that could tell"


def _why(outcomes: Outcomes, reasons: Mapping[str, int]) -> str:
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
    parts = [f"{number} {reason}" for reason, number in most]
    if outcomes.silent:
        parts.append(f"{outcomes.silent} silent after the switch")
    return f" ({', '.join(parts)})" if parts else ""
