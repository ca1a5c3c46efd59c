"""The gate on installs: never a verdict without evidence, never more false ones than it says."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pilotwave_server.rollouts.gates import mixture
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.gates.verdict import Word
from pilotwave_server.rollouts.policies.policy import InstallGate

bounds = st.sampled_from([0.0001, 0.01, 0.05, 0.3, 0.99])
alphas = st.sampled_from([0.000001, 0.001, 0.01, 0.2])
counts = st.integers(0, 10**9)
GATE = InstallGate(max_failure_rate=0.01)


def word(healthy: int, failed: int, *, silent: int = 0, under_way: int = 0) -> Word:
    return judge(GATE, Evidence(Outcomes(healthy, failed, silent, under_way)))[0].word


@settings(deadline=None)
@given(counts, counts, counts, counts, bounds, alphas)
@example(1, 1_862_044, 0, 0, 0.01, 1e-6)  # all but one failed: the bound rounds to 1
def test_any_counts_get_a_verdict_with_finite_numbers(
    healthy: int, failed: int, silent: int, under_way: int, bound: float, alpha: float
) -> None:
    gate = InstallGate(max_failure_rate=bound, alpha=alpha)
    found = judge(gate, Evidence(Outcomes(healthy, failed, silent, under_way)))
    assert found[0].sentence
    assert all(math.isfinite(number) for number in found[0].numbers.values())


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 200), bounds, alphas)
def test_one_more_failure_never_helps_and_one_more_success_never_harms(
    healthy: int, failed: int, under_way: int, bound: float, alpha: float
) -> None:
    def evidence(good: int, bad: int) -> float:
        return mixture.log_evidence(bad, good + bad + under_way, bound)

    now = evidence(healthy, failed)
    assert evidence(healthy, failed + 1) > now
    assert evidence(healthy + 1, failed) <= now + 1e-9
    assert evidence(healthy, failed) <= evidence(max(0, healthy - 1), failed) + 1e-9


@settings(deadline=None)
@given(counts, counts, bounds, alphas)
def test_without_a_failure_nothing_fails(
    healthy: int, under_way: int, bound: float, alpha: float
) -> None:
    gate = InstallGate(max_failure_rate=bound, alpha=alpha)
    found = judge(gate, Evidence(Outcomes(healthy=healthy, under_way=under_way)))[0].word
    assert found is (Word.PASS if healthy else Word.WAIT)


# each row: outcomes, what is said, and why
@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({"healthy": 0, "failed": 0, "under_way": 4}, Word.WAIT),  # nothing has settled
        ({"healthy": 20, "failed": 0}, Word.PASS),
        ({"healthy": 0, "failed": 2}, Word.FAIL),  # two of two, where 1 % may
        ({"healthy": 0, "failed": 1, "silent": 1}, Word.FAIL),  # silence counts like a failure
        ({"healthy": 0, "failed": 1, "under_way": 3}, Word.WAIT),  # one of four may be chance
        ({"healthy": 0, "failed": 1}, Word.INCONCLUSIVE),  # one dead canary proves nothing
        ({"healthy": 99, "failed": 1}, Word.PASS),  # as much as is allowed
        # failures come first: 5 of 5 settled failed, but of a thousand that began 10 may
        ({"healthy": 0, "failed": 5, "under_way": 995}, Word.PASS),
        ({"healthy": 0, "failed": 25, "under_way": 975}, Word.FAIL),
    ],
)
def test_what_outcomes_come_to(outcomes: dict[str, int], expected: Word) -> None:
    assert word(**outcomes) is expected


def test_two_dead_canaries_of_two_stop_a_version_by_the_usual_gate() -> None:
    usual = InstallGate()
    assert usual.max_failure_rate == 0.05
    assert judge(usual, Evidence(Outcomes(failed=2)))[0].word is Word.FAIL
    assert judge(usual, Evidence(Outcomes(healthy=2, failed=2)))[0].word is not Word.FAIL


def test_sentences_say_numbers_reasons_and_what_is_waited_for() -> None:
    evidence = Evidence(
        Outcomes(healthy=5, failed=4, silent=1),
        reasons={"selftest_mismatch": 3, "probe_failed": 1},
    )
    found = judge(GATE, evidence)[0]
    assert found.sentence == (
        "5 of 10 devices failed (3 selftest_mismatch, 1 probe_failed, 1 silent after the switch); "
        "the limit is 1%. A good version would be stopped by chance in fewer than 1 in 100 rollouts"
    )
    assert judge(GATE, Evidence(Outcomes(failed=1, under_way=3)))[0].sentence == (
        "1 of 4 devices failed; the limit is 1%. This may still be chance; "
        "3 devices are still installing"
    )


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (
            Outcomes(healthy=1),
            "0 of 1 device failed; the limit is 1%. 1 device is healthy: too few to tell",
        ),
        (
            Outcomes(healthy=40),
            "0 of 40 devices failed; the limit is 1%. "
            "40 devices are healthy: the failure rate is below 16%",
        ),
        (Outcomes(under_way=1), "no device has finished yet; 1 device is still installing"),
    ],
)
def test_sentences_count_one_device_and_many(outcomes: Outcomes, said: str) -> None:
    assert judge(GATE, Evidence(outcomes))[0].sentence == said


def test_a_failure_that_one_board_shows_is_found_there() -> None:
    gate = InstallGate(max_failure_rate=0.05, slice_by=("board",))
    boards = {
        ("board", "nano"): Outcomes(healthy=1, failed=7),
        ("board", "pi"): Outcomes(healthy=400),
        ("board", "x86"): Outcomes(healthy=92),
        ("site", "berlin"): Outcomes(failed=50),  # not asked for
    }
    found = judge(gate, Evidence(Outcomes(healthy=493, failed=7), boards))
    assert [(v.slice, v.word) for v in found] == [
        (None, Word.PASS),
        ("board=nano", Word.FAIL),
        ("board=pi", Word.PASS),
        ("board=x86", Word.PASS),
    ]


@pytest.mark.parametrize("bound", [0.01, 0.05, 0.2])
def test_the_chance_of_a_false_stop_stays_below_alpha_however_one_looks(bound: float) -> None:
    level = mixture.threshold(bound, 0.05)
    rng = random.Random(7)
    stopped = 0
    for _ in range(1000):
        bad = 0
        for seen in range(1, 301):
            if rng.random() < bound:
                bad += 1
                # it can only cross upwards with a failure, so looking then is looking always
                if mixture.log_evidence(bad, seen, bound) >= level:
                    stopped += 1
                    break
    # 4 standard deviations above alpha would be 78
    assert stopped <= 50


@pytest.mark.parametrize("alpha", [0.2, 0.01, 0.0001])
def test_the_level_is_never_above_villes(alpha: float) -> None:
    for bound in (0.001, 0.01, 0.1, 0.5):
        assert 0 <= mixture.threshold(bound, alpha) <= -math.log(alpha)


@given(st.integers(0, 1000), st.integers(0, 1000), alphas)
def test_the_upper_bound_lies_above_what_was_seen(bad: int, good: int, alpha: float) -> None:
    found = mixture.upper_bound(bad, bad + good, alpha)
    assert found <= 1
    assert not bad + good or found >= bad / (bad + good)


def test_errors_of_slices_add_up_to_half_however_many_appear() -> None:
    from pilotwave_server.rollouts.gates import alpha as shares

    for slices in (1, 2, 5, 1000):
        # the r-th to appear is judged while there are r of them or more
        total = sum(shares.for_slice(0.01, rank) for rank in range(1, slices + 1))
        assert shares.for_whole(0.01, slices) + total <= 0.01
