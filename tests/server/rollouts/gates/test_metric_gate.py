"""The gate on live metrics: what it stops, what it waits for, and that ranks alone decide."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave_server.rollouts.gates import ranks
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes, Sample
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.gates.ranks import Unit
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.policy import MetricGate

GATE = MetricGate("latency", "latency_ms", min_devices=3, min_windows=6)
figures = st.floats(allow_nan=False, allow_infinity=False, width=64)


def windows(
    *, new: int, old: int, shift: float = 0.0, each: int = 3, seed: int = 1, drift: float = 0.03
) -> list[Sample]:
    """`each` windows of each device, the old devices first; speeds differ by far."""
    rng = random.Random(seed)
    found = []
    devices = [(n, False) for n in range(old)] + [(old + n, True) for n in range(new)]
    for device, is_new in devices:
        speed, own = math.exp(rng.gauss(2, 1)), rng.gauss(0, drift)
        for _ in range(each):
            worse = (1 + shift) if is_new else 1.0
            value = speed * worse * math.exp(own + rng.gauss(0, 0.03))
            board = {"board": ("nano", "pi")[device % 2]}
            found.append(Sample(device, is_new, value, speed, board))
    return found


def verdict(samples: list[Sample], gate: MetricGate = GATE, **known: Any) -> Verdict:
    evidence = Evidence(samples={f"{gate.metric} {gate.statistic}": samples}, **known)
    return judge(gate, evidence)[0]


def test_a_shift_beyond_what_is_allowed_fails_on_few_devices() -> None:
    found = verdict(windows(new=4, old=40, shift=0.5))
    assert found.word is Word.FAIL
    assert found.sentence.startswith("p95 of latency_ms is 5")
    assert "on 4 devices with the version" in found.sentence
    assert found.sentence.endswith(
        "A good version would be stopped by chance in fewer than 1 in 100 rollouts"
    )


def test_a_shift_within_what_is_allowed_passes() -> None:
    assert verdict(windows(new=20, old=40, shift=0.05)).word is Word.PASS


def test_where_lower_is_worse_a_drop_fails_and_a_rise_does_not() -> None:
    gate = MetricGate("score", "score", statistic="mean", worse="lower", min_effect=0.05)
    assert verdict(windows(new=5, old=40, shift=-0.3), gate).word is Word.FAIL
    assert verdict(windows(new=5, old=40, shift=0.3), gate).word is Word.PASS


def test_what_changed_for_all_is_no_failure() -> None:
    """At noon everything takes twice as long: the first devices have it when the version comes."""
    samples = windows(new=0, old=30)
    noon = [s._replace(value=2 * s.value) for s in windows(new=10, old=30, seed=2)]
    assert verdict(samples + noon).word is not Word.FAIL


def test_few_old_devices_leave_the_devices_own_past() -> None:
    """A fleet of six, one canary: eleven windows in a row worse than before."""
    slow = windows(new=1, old=5, shift=1.0, each=11)
    assert verdict(slow[:-4]).word is not Word.FAIL
    found = verdict(slow)
    assert found.word is Word.FAIL
    assert "11 of 11 windows on 1 device are worse than before" in found.sentence
    assert verdict(windows(new=1, old=5, each=11)).word is Word.WAIT  # three devices are asked


def test_errors_where_there_were_none_are_seen() -> None:
    gate = MetricGate("errors", "error", statistic="mean", min_effect=0.5)
    quiet = [Sample(n, False, 0.0, 0.0) for n in range(30)]
    failing = [Sample(100 + n, True, 0.2, 0.0) for n in range(4)]
    assert verdict(quiet + failing, gate).word is Word.FAIL
    fine = [s._replace(value=0.0) for s in failing] * 2
    assert verdict(quiet + fine, gate).word is Word.PASS


def test_what_is_lacking_is_waited_for_and_given_up_in_words() -> None:
    few = windows(new=2, old=40, each=2)
    found = verdict(few, outcomes=Outcomes(healthy=2, under_way=1), quiet_s=1e6)
    assert found.word is Word.WAIT
    assert "The gate needs 3 devices (so far 2) and 6 windows (so far 4)" in found.sentence
    found = verdict(few, outcomes=Outcomes(healthy=2), quiet_s=1e6)
    assert found.word is Word.INCONCLUSIVE
    assert "no other device is still installing" in found.sentence


@pytest.mark.parametrize(
    ("in_use_s", "expected", "words"),
    [
        (None, Word.WAIT, "no device runs the version yet"),
        (60.0, Word.WAIT, "the gate waits 29 min more"),
        (7200.0, Word.INCONCLUSIVE, "Does the application record it under this name?"),
    ],
)
def test_a_metric_that_nobody_reports_is_no_hang(
    in_use_s: float | None, expected: Word, words: str
) -> None:
    found = verdict([], in_use_s=in_use_s)
    assert found.word is expected
    assert words in found.sentence


def test_a_metric_that_no_device_is_left_to_report_is_no_hang() -> None:
    """All that took the version failed its self-test: nobody will ever report from use."""
    found = verdict([], in_use_s=None, outcomes=Outcomes(failed=2))
    assert found.word is Word.INCONCLUSIVE
    assert "none can report" in found.sentence
    waiting = verdict([], in_use_s=None, outcomes=Outcomes(failed=2, under_way=1))
    assert waiting.word is Word.WAIT


def test_a_slowdown_that_one_board_shows_is_found_there() -> None:
    gate = MetricGate("latency", "latency_ms", slice_by=("board",))
    good = windows(new=30, old=60)
    mixed = [
        s._replace(value=1.6 * s.value) if s.new and s.slices["board"] == "nano" else s
        for s in good
    ]
    found = judge(gate, Evidence(samples={"latency_ms p95": mixed}))
    assert {v.slice: v.word for v in found[1:]} == {
        "board=nano": Word.FAIL,
        "board=pi": Word.PASS,
    }
    assert {v.word for v in judge(gate, Evidence(samples={"latency_ms p95": good}))} == {Word.PASS}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.booleans(),
            figures,
            st.none() | figures,
            st.dictionaries(st.just("board"), st.text(max_size=3)),
        ),
        max_size=60,
    ),
    st.sampled_from(["higher", "lower"]),
    st.sampled_from([0.0, 0.1, 10.0]),
)
def test_no_numbers_crash_it(rows: list[Any], worse: str, effect: float) -> None:
    gate = MetricGate("g", "latency_ms", worse=worse, min_effect=effect, slice_by=("board",))
    for found in judge(gate, Evidence(samples={"latency_ms p95": [Sample(*r) for r in rows]})):
        assert found.sentence
        numbers = [n for n in found.numbers.values() if n is not None]
        assert all(math.isfinite(number) for number in numbers)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30), st.integers(0, 20))
def test_only_ranks_count(worse: list[int], old: int) -> None:
    rng = random.Random(3)
    units = [Unit(False, rng.randint(-50, 50)) for _ in range(old)]
    units += [Unit(True, value) for value in worse]
    bent = [Unit(u.new, u.worse**3 * 1000.0 + 5) for u in units]
    assert ranks.log_evidence(bent) == pytest.approx(ranks.log_evidence(units))


@given(st.permutations(list(range(12))))
def test_the_order_of_old_units_before_new_ones_is_of_no_account(order: list[int]) -> None:
    new = [Unit(True, 10.5), Unit(True, 7.5), Unit(True, 11.5)]
    straight = [Unit(False, n) for n in range(12)]
    bent = [Unit(False, n) for n in order]
    assert ranks.log_evidence(bent + new) == pytest.approx(ranks.log_evidence(straight + new))


def test_without_a_new_unit_there_is_no_evidence() -> None:
    assert ranks.log_evidence([Unit(False, n) for n in range(50)]) == pytest.approx(0)


@pytest.mark.parametrize("tail", ["normal", "cauchy", "tied", "better"])
def test_the_chance_of_a_false_stop_stays_below_alpha_at_any_look(tail: str) -> None:
    """Exchangeable units of any kind, and new ones that are better: at most 5 % ever reach 20."""
    rng = random.Random(11)

    def draw(new: bool) -> float:
        if tail == "cauchy":
            return math.tan(math.pi * (rng.random() - 0.5))
        if tail == "tied":
            return float(rng.choice([0, 0, 0, 0, 1, 2]))
        return rng.gauss(-0.7 if new and tail == "better" else 0, 1)

    stopped = 0
    for _ in range(600):
        stakes = ranks.Stakes()
        for n in range(70):
            new = n >= 10 and n % 2 == 0
            stakes.add(Unit(new, draw(new)))
            if new and stakes.log_evidence >= math.log(20):
                stopped += 1
                break
    assert stopped <= 30  # 5 % of 600
