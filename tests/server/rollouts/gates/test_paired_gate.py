"""The gates of a shadow wave: what stops a candidate, what is waited for, and that each device has
one voice."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pilotwave_protocol import shadow
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes, Sample
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.gates.voices import BEYOND, HALVES, LOUDEST, SHARES, Voices, coins
from pilotwave_server.rollouts.policies.paired import (
    Disagreement,
    Errors,
    Latency,
    Memory,
    PairedGate,
    Score,
)

DISAGREEMENT = PairedGate("disagreement", disagreement=Disagreement(0.02))
LATENCY = PairedGate("latency", latency=Latency(min_effect=0.05))
SCORE = PairedGate("score", score=Score(0.02))
ERRORS = PairedGate("errors", errors=Errors(0.0001))
MEMORY = PairedGate("memory", memory=Memory(1.5))
BAD = {
    "disagreement": (DISAGREEMENT, shadow.DISAGREE, 0.06, 0.01),
    "latency": (LATENCY, shadow.LATENCY_RATIO, 1.1, 1.02),
    "score": (SCORE, shadow.SCORE_CHANGE, -0.09, 0.01),
    "errors": (ERRORS, shadow.ERROR, 0.02, 0.0),
    "no number": (ERRORS, shadow.NONFINITE, 0.02, 0.0),
    "memory": (MEMORY, shadow.MEMORY_RATIO, 2.0, 1.1),
}
STATISTIC = {shadow.LATENCY_RATIO: "p50", shadow.MEMORY_RATIO: "p50"}
OVER = {"quiet_s": 1e6, "in_use_s": 1e6}


def windows(devices: range, value: float, *, each: int = 8, calls: int = 100) -> list[Sample]:
    return [Sample(n, True, value, None, calls=calls) for _ in range(each) for n in devices]


def verdict(gate: PairedGate, metric: str, samples: list[Sample], **known: Any) -> Verdict:
    name = f"{metric} {STATISTIC.get(metric, 'mean')}"
    known = {"took": len({s.device for s in samples}), "min_calls": 500, **known}
    (found,) = judge(gate, Evidence(samples={name: samples}, **known))
    return found


@pytest.mark.parametrize("what", BAD)
def test_three_devices_that_see_the_same_stop_a_candidate_that_no_user_met(what: str) -> None:
    gate, metric, bad, good = BAD[what]
    found = verdict(gate, metric, windows(range(3), bad))
    assert found.word is Word.FAIL
    assert "on 3 devices" in found.sentence
    assert "No user has met the version" in found.sentence
    assert found.sentence.endswith("by chance in fewer than 1 in 100 rollouts")
    assert verdict(gate, metric, windows(range(3), good)).word is Word.PASS


@pytest.mark.parametrize("what", BAD)
def test_a_candidate_is_not_passed_while_most_devices_see_it_over_the_limit(what: str) -> None:
    """A wave's sample may be there after a window each, long before there is evidence."""
    gate, metric, bad, good = BAD[what]
    found = verdict(gate, metric, windows(range(2), bad, each=1, calls=500))
    assert found.word is Word.WAIT
    assert found.sentence.endswith("More windows or devices will tell")
    mixed = windows(range(1), bad, each=1, calls=500)
    mixed += windows(range(1, 4), good, each=1, calls=500)
    assert verdict(gate, metric, mixed).word is Word.PASS


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("devices", [1, 2])
def test_one_or_two_devices_stop_nothing_and_have_a_person_asked(what: str, devices: int) -> None:
    gate, metric, bad, _ = BAD[what]
    found = verdict(gate, metric, windows(range(devices), bad, each=40))
    assert (found.word, found.numbers["lies_to_stop"]) == (Word.WAIT, 3)
    found = verdict(gate, metric, windows(range(devices), bad, each=40), **OVER)
    assert found.word is Word.INCONCLUSIVE
    assert "Too few devices show this" in found.sentence


def test_figures_of_each_limit_are_told_in_its_own_words() -> None:
    def told(what: str) -> str:
        gate, metric, bad, _ = BAD[what]
        return verdict(gate, metric, windows(range(3), bad)).sentence.partition("; at least")[0]

    on = "2,400 calls on 3 devices"
    assert told("disagreement") == f"the answers differ in 6% of {on}; the limit is 2%"
    assert told("latency") == f"the version takes 10% longer in {on}; the limit is 5%"
    assert told("score") == f"the score is 0.09 lower in {on}; the limit is 0.02"
    assert told("errors") == f"the version fails in 2% of {on}; the limit is 0.01%"
    assert told("memory") == f"the version takes 2 times the memory in {on}; the limit is 1.5"


def test_a_score_of_which_more_is_worse_is_told_so() -> None:
    gate = PairedGate("score", score=Score(0.02, worse="higher"))
    assert verdict(gate, shadow.SCORE_CHANGE, windows(range(3), 0.09)).word is Word.FAIL
    assert verdict(gate, shadow.SCORE_CHANGE, windows(range(3), -0.09)).word is Word.PASS


def test_a_device_counts_once_it_has_compared_enough_calls() -> None:
    gate, metric, bad, _ = BAD["latency"]
    found = verdict(gate, metric, windows(range(4), bad, calls=50))
    assert found.word is Word.WAIT
    assert "4 devices began to compare the version with the one in use" in found.sentence
    assert "The gate needs 1 device with 500 compared calls each (so far 0)" in found.sentence
    assert found.numbers["calls"] == 0


def test_a_device_on_which_the_candidate_keeps_failing_counts_at_once() -> None:
    """It may never compare as many calls as are asked for."""
    found = verdict(ERRORS, shadow.ERROR, windows(range(3), 1.0, each=2, calls=3))
    assert found.word is Word.FAIL


def test_failures_of_many_devices_add_up() -> None:
    """Two calls of 1,000 fail on most devices: on one of them alone that might be bad luck."""
    failing = windows(range(13), 0.01, each=2) + windows(range(13), 0.0, each=8)
    never = windows(range(13, 20), 0.0, each=10)
    assert verdict(ERRORS, shadow.ERROR, failing + never).word is Word.FAIL
    one = [s for s in failing if s.device == 0]
    assert verdict(ERRORS, shadow.ERROR, one + never).word is Word.PASS


def test_a_quarter_of_the_devices_can_neither_stop_nor_pass_a_candidate_by_lies() -> None:
    gate, metric, bad, good = BAD["latency"]
    loud = windows(range(5), bad, each=50) + windows(range(5, 20), good, each=50)
    assert verdict(gate, metric, loud, **OVER).word is Word.INCONCLUSIVE
    quiet = windows(range(5), good, each=50) + windows(range(5, 20), bad, each=50)
    found = verdict(gate, metric, quiet)
    assert found.word is Word.FAIL
    assert found.numbers["lies_to_pass"] > 5


def test_the_first_to_speak_do_not_decide_alone() -> None:
    gate, metric, bad, _ = BAD["latency"]
    late: dict[str, Any] = {"listen_s": 60.0, "heard_s": {f"{metric} p50": 30.0}}
    found = verdict(gate, metric, windows(range(3), bad), took=12, **late)
    assert found.word is Word.WAIT
    assert "3 of the 12 devices with the version have reported" in found.sentence
    late["heard_s"] = {f"{metric} p50": 61.0}
    assert verdict(gate, metric, windows(range(3), bad), took=12, **late).word is Word.FAIL
    assert verdict(gate, metric, windows(range(6), bad), took=12).word is Word.FAIL


@pytest.mark.parametrize(
    ("known", "expected", "words"),
    [
        ({"in_use_s": None}, Word.WAIT, "no device has the version in shadow yet"),
        (
            {"in_use_s": None, "outcomes": Outcomes(failed=2)},
            Word.INCONCLUSIVE,
            "no device keeps the version in shadow",
        ),
        ({"in_use_s": 60.0}, Word.WAIT, "the gate waits 29 min more"),
        ({"in_use_s": 7200.0}, Word.INCONCLUSIVE, "take part, by LiveModel or its socket?"),
    ],
)
def test_a_shadow_in_which_nobody_takes_part_is_no_hang(
    known: dict[str, Any], expected: Word, words: str
) -> None:
    found = verdict(LATENCY, shadow.LATENCY_RATIO, [], **known)
    assert found.word is expected
    assert words in found.sentence


def test_a_device_that_drops_every_call_says_why_there_are_no_figures() -> None:
    dropped = {"shadow_dropped mean": windows(range(2), 1.0)}
    (found,) = judge(LATENCY, Evidence(samples=dropped, in_use_s=7200.0))
    assert found.word is Word.INCONCLUSIVE
    assert "2 devices dropped calls: busy, hot, low on battery" in found.sentence


def test_fewer_devices_than_are_asked_for_is_no_hang() -> None:
    gate = PairedGate("latency", latency=Latency(), min_devices=3)
    few = windows(range(2), 1.0)
    assert verdict(gate, shadow.LATENCY_RATIO, few).word is Word.WAIT
    found = verdict(gate, shadow.LATENCY_RATIO, few, **OVER)
    assert found.word is Word.INCONCLUSIVE
    assert "no other device compares any" in found.sentence


def chance_of_a_stop(
    rng: random.Random, window: Callable[[], float], stakes: Sequence[float], *, runs: int
) -> float:
    """Of rollouts of 30 devices, which part is ever stopped, looked at after each window."""
    stopped = 0
    for _ in range(runs):
        seen: list[list[float]] = [[] for _ in range(30)]
        for step in range(90):
            rng.choice(seen[: step + 1]).append(window())
            heard = sorted(coins([each], stakes) for each in seen if each)
            if Voices(heard, 0.0).log_evidence >= -math.log(0.05):
                stopped += 1
                break
    return stopped / runs


def test_a_candidate_at_its_very_limit_is_stopped_as_seldom_as_promised() -> None:
    rng = random.Random(2026)
    halves = chance_of_a_stop(rng, lambda: BEYOND * (rng.random() < 0.5), HALVES, runs=150)
    # all calls of a window agree or none does, as where they are of one scene
    scenes = chance_of_a_stop(rng, lambda: 50.0 * (rng.random() < 0.02), SHARES, runs=150)
    assert max(halves, scenes) <= 0.05


@given(st.lists(st.floats(0, 1e6), max_size=40), st.floats(0, 1e6))
def test_coins_grow_with_what_is_seen_and_no_device_has_more_than_the_loudest(
    multiples: list[float], more: float
) -> None:
    fewer, found = (coins([[*multiples, last]], SHARES) for last in (0.0, more))
    assert 0 <= fewer <= found * (1 + 1e-9) <= LOUDEST * (1 + 1e-9)
    assert coins([[]], SHARES) == 1


@settings(deadline=None)
@given(st.lists(st.floats(0, LOUDEST), max_size=30))
def test_the_count_of_lies_is_the_least_that_does_it(found: list[float]) -> None:
    voices = Voices(sorted(found), -math.log(0.01))
    if not voices.stops:
        at_least = voices.to_stop
        assert voices._with_loud(at_least).stops
        assert not voices._with_loud(at_least - 1).stops
        assert at_least >= 1
    else:
        assert not voices._with_quiet(voices.to_pass).stops
        assert voices._with_quiet(voices.to_pass - 1).stops


@example("latency", [Sample(0, True, 1.7975e308, None, calls=500)])
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(BAD)),
    st.lists(
        st.builds(
            Sample,
            device=st.integers(0, 5),
            new=st.just(True),
            value=st.floats(allow_nan=False, allow_infinity=False),
            reference=st.none(),
            calls=st.integers(0, 2**53),
        ),
        max_size=40,
    ),
)
def test_whatever_devices_send_there_is_a_verdict_with_numbers(
    what: str, samples: list[Sample]
) -> None:
    gate, metric, _, _ = BAD[what]
    found = verdict(gate, metric, samples, in_use_s=10.0)
    assert found.word in Word
    for number in found.numbers.values():
        assert number is None or math.isfinite(number)
