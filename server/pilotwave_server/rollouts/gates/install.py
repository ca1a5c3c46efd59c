"""Judge how the version does on the devices that begin with it: the share that fails.

A device counts from its begin, not from its outcome, and as good until it failed. Failures come
fast and good health comes slowly, so of the devices that have *settled* too many failed at first,
whatever the version is worth; of those that have *begun*, never.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pilotwave_server.rollouts.gates import alpha as shares
from pilotwave_server.rollouts.gates import mixture
from pilotwave_server.rollouts.gates.alpha import percent
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.document import InstallGate

# An e-value from which on a wave does not pass by itself. Bad luck goes so far in at most 1 of 5
# rollouts, and one dead canary of two goes further. Of many slices, one is always unlucky: there
# it lies just below what stops.
_DOUBT = math.log(5)
_SLICE_DOUBT = math.log(10)
_MOST_REASONS = 3


def judge_install(gate: InstallGate, evidence: Evidence) -> list[Verdict]:
    """Return the verdict on all devices, then one for each slice of which a device has settled."""
    mine = {part: o for part, o in evidence.slices.items() if part[0] in gate.slice_by}
    whole = shares.for_whole(gate.alpha, len(mine))
    each = shares.for_slice(gate.alpha, len(mine))
    found = [_judge(gate, evidence.outcomes, whole, reasons=evidence.reasons)]
    for (key, value), outcomes in sorted(mine.items()):
        if outcomes.settled:
            found.append(_judge(gate, outcomes, each, slice=f"{key}={value}"))
    return found


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
    }
    doubt = level - _SLICE_DOUBT if slice else min(_DOUBT, level)
    word = _word(outcomes, evidence, level, doubt)
    sentence = _say(word, gate, outcomes, numbers["at_most"], reasons or {})
    return Verdict(gate.name, word, sentence, numbers, slice)


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
    going = f"{outcomes.under_way} are still under way"
    if not outcomes.settled:
        return f"no device has settled yet, {going}"
    allowed = f"at most {percent(gate.max_failure_rate)} may"
    told = f"{outcomes.bad} of {outcomes.begun} devices failed{_why(outcomes, reasons)}; {allowed}"
    match word:
        case Word.FAIL:
            seldom = shares.in_words(gate.alpha)
            return f"{told}. Chance alone does this in fewer than {seldom}"
        case Word.PASS:
            shown = f"so far this shows a failure rate below {percent(at_most)}"
            return f"{told}; {outcomes.healthy} are healthy, {shown}"
        case Word.WAIT:
            return f"{told}. That may still be chance: {going}"
        case _:
            return f"{told}. That may be chance, but no device is under way that could tell"


def _why(outcomes: Outcomes, reasons: Mapping[str, int]) -> str:
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
    parts = [f"{number} {reason}" for reason, number in most]
    if outcomes.silent:
        parts.append(f"{outcomes.silent} silent after the switch")
    return f" ({', '.join(parts)})" if parts else ""
