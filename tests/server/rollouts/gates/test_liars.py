"""Lying devices: each has one voice, and fewer than a quarter of an arm turn no metric gate."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import pytest

from pilotwave_server.rollouts.gates.agreement import Agreement
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes, Sample
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.gates.trend import Trend
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.policy import InstallGate, MetricGate
from tests.server.rollouts.gates.test_metric_gate import verdict, windows

OLD = 80


def lying(samples: Iterable[Sample], devices: set[int], times: float) -> list[Sample]:
    return [s._replace(value=s.value * times) if s.device in devices else s for s in samples]


def split(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    return [s for s in samples if not s.new], [s for s in samples if s.new]


def flooded(samples: list[Sample], device: int, count: int, times: float) -> list[Sample]:
    """The old arm's windows, then `count` of one of its devices, then the new arm's."""
    old, new = split(samples)
    mine = next(s for s in old if s.device == device)
    return [*old, *[mine._replace(value=mine.value * times)] * count, *new]


@pytest.mark.parametrize("count", [48, 401])
def test_a_flood_of_one_device_moves_no_trend(count: int) -> None:
    good, slow = windows(new=6, old=24), windows(new=6, old=24, shift=0.58)
    assert verdict(flooded(good, 3, count, 0.4)).word is Word.PASS
    assert verdict(flooded(slow, 3, count, 1.7)).word is Word.FAIL


def test_windows_of_one_device_decide_no_way_of_comparing() -> None:
    """It has no past and sends many windows; the others have one each, and speeds differ by far."""
    slow = windows(new=6, old=40, shift=0.5)
    odd = [Sample(999, True, 5.0, None)] * 401
    assert verdict([*slow, *odd]).word is Word.FAIL


def test_one_devices_windows_do_not_make_up_the_sample() -> None:
    gate = MetricGate("latency", "latency_ms", min_devices=3, min_windows=12)
    few = windows(new=3, old=40, each=2)
    many = [s for s in few if s.new and s.device == 41] * 20
    found = verdict([*few, *many], gate)
    assert found.word is Word.WAIT
    assert "12 windows (so far 8)" in found.sentence


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("new", "lies"), [(8, 1), (20, 4), (60, 14)])
def test_fewer_than_a_quarter_stop_no_healthy_version(new: int, lies: int, seed: int) -> None:
    """Those on the version say it is ten times slower, as many of the others that all is well."""
    good = windows(new=new, old=OLD, seed=seed)
    liars = {OLD + n for n in range(lies)}
    worst = lying(lying(good, liars, 10.0), set(range(OLD // 4 - 1)), 0.1)
    assert verdict(worst).word is not Word.FAIL


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("new", "lies"), [(8, 1), (20, 4), (60, 14)])
def test_fewer_than_a_quarter_pass_no_bad_version(new: int, lies: int, seed: int) -> None:
    slow = windows(new=new, old=OLD, seed=seed, shift=0.5)
    liars = {OLD + n for n in range(lies)}
    worst = lying(lying(slow, liars, 0.1), set(range(OLD // 4 - 1)), 10.0)
    assert verdict(worst).word is not Word.PASS


def test_the_first_to_speak_do_not_decide_alone() -> None:
    """Sixty devices took it, and two that lie report before the others can."""
    found = windows(new=2, old=40, shift=5.0, each=6)
    waits = {"took": 60, "heard_s": {"latency_ms p95": 60.0}, "listen_s": 2700.0}
    early = verdict(found, **waits)
    assert early.word is Word.WAIT
    few = verdict(windows(new=3, old=40), **waits)
    assert "3 of the 60 devices with the version have reported" in few.sentence
    assert verdict(found, took=60, heard_s={"latency_ms p95": 2700.0}, listen_s=2700.0).word is (
        Word.FAIL
    )
    assert verdict(windows(new=30, old=40, shift=0.5), **waits).word is Word.FAIL


def test_where_others_do_not_report_the_gate_passes_after_a_while() -> None:
    good = windows(new=6, old=40)
    series = {"latency_ms p95": 2700.0}
    assert verdict(good, took=60, heard_s=series, listen_s=2700.0).word is Word.PASS
    assert verdict(good, took=8, listen_s=2700.0).word is Word.PASS  # three quarters were heard


def test_a_verdict_says_how_many_would_have_to_lie() -> None:
    passed = verdict(windows(new=20, old=OLD))
    assert passed.numbers["lies_to_stop"] >= 5
    assert f"at least {passed.numbers['lies_to_stop']} devices would have to lie" in passed.sentence
    failed = verdict(windows(new=20, old=OLD, shift=0.5))
    assert failed.numbers["lies_to_stop"] is None
    assert failed.numbers["lies_to_pass"] >= 5


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [8, 20, 60])
def test_no_fewer_lies_than_it_says_stop_it(count: int, seed: int) -> None:
    good = windows(new=count, old=OLD, seed=seed)
    says = verdict(good).numbers["lies_to_stop"]
    for old in range(0, says, 3):
        low = set(range(old))
        high = {OLD + n for n in range(says - 1 - old)}
        assert verdict(lying(lying(good, low, 0.01), high, 100.0)).word is not Word.FAIL


def test_devices_that_say_where_they_belong_end_no_rollout_alone() -> None:
    """Three of sixty invent a board; were it a label that an operator set, it would decide."""
    gate = MetricGate("latency", "latency_ms", slice_by=("board", "fact.board"))
    good = windows(new=60, old=OLD)
    liars = {OLD, OLD + 1, OLD + 2, OLD + 3}
    worst = lying([s._replace(slices={}) for s in good], liars, 10.0)
    for key, word in (("fact.board", Word.INCONCLUSIVE), ("board", Word.FAIL)):
        told = [s._replace(slices={key: "odd"}) if s.device in liars else s for s in worst]
        found = judge(gate, Evidence(samples={"latency_ms p95": told}))
        assert {v.slice: v.word for v in found[1:]} == {f"{key}=odd": word}
    assert "a person has to decide" in by_fact(found=judge(gate, facts(worst, liars)))


def facts(samples: list[Sample], devices: set[int]) -> Evidence:
    told = [s._replace(slices={"fact.board": "odd"}) if s.device in devices else s for s in samples]
    return Evidence(samples={"latency_ms p95": told})


def by_fact(found: list[Verdict]) -> str:
    return next(v.sentence for v in found if v.slice == "fact.board=odd")


def test_a_device_that_changes_its_facts_stays_in_its_first_slice() -> None:
    gate = MetricGate("latency", "latency_ms", slice_by=("board", "fact.board"))
    good = windows(new=20, old=OLD)
    shifty = [
        s._replace(slices={"fact.board": f"made-up-{n % 3}"}) if s.device == OLD else s
        for n, s in enumerate(good)
    ]
    found = judge(gate, Evidence(samples={"latency_ms p95": shifty}))
    assert {v.slice for v in found} == {None, "board=nano", "board=pi"}


def test_failed_installs_of_an_invented_board_are_for_a_person_to_judge() -> None:
    gate = InstallGate(max_failure_rate=0.05, slice_by=("board", "fact.board"))
    known: dict[str, Any] = {"outcomes": Outcomes(healthy=200, failed=4)}
    for key, word in (("fact.board", Word.INCONCLUSIVE), ("board", Word.FAIL)):
        found = judge(gate, Evidence(**known, slices={(key, "odd"): Outcomes(failed=4)}))
        assert [v.word for v in found] == [Word.PASS, word]


def test_the_install_gate_says_how_many_lies_it_takes() -> None:
    gate = InstallGate(max_failure_rate=0.05)
    found = judge(gate, Evidence(Outcomes(healthy=100)))[0]
    assert found.word is Word.PASS
    lies = found.numbers["lies_to_stop"]
    for more, word in ((lies - 1, Word.PASS), (lies, Word.FAIL)):
        counts = Outcomes(healthy=100 - more, failed=more)
        assert (judge(gate, Evidence(counts))[0].word is Word.FAIL) == (word is Word.FAIL)


# ---- the trend


def test_a_device_has_one_voice_in_the_trend() -> None:
    trend = Trend()
    for device in range(9):
        trend.add(device, 0.1, 1000.0, 900.0)
    for n in range(401):
        trend.add(99, 50.0, 1000.0 + n, 1.0)
    assert trend.at(1500.0) == 0.1


def test_late_windows_are_judged_by_their_own_time() -> None:
    """At noon all are slower; a window of the night before comes at noon."""
    trend = Trend()
    for hour, change in ((0, 0.0), (3, 0.0), (12, 1.0)):
        for device in range(20):
            trend.add(device, change, hour * 3600.0, 900.0)
    assert trend.at(12 * 3600.0) == 1.0
    assert trend.at(3 * 3600.0 + 60) == 0.0
    trend.add(3, 9.0, 0.0, 900.0)  # and it is no voice in what is now
    assert trend.at(12 * 3600.0) == 1.0


def test_devices_that_report_seldom_are_heard_like_those_that_report_often() -> None:
    """Thirty report once a day; ten that lie, each minute."""
    trend = Trend()
    for device in range(30):
        trend.add(device, 0.0, 1000.0 * device, 86_400.0)
    for minute in range(600):
        for device in range(100, 110):
            trend.add(device, 5.0, 30_000.0 + 60 * minute, 60.0)
    assert trend.at(80_000.0) == 0.0


def test_a_voice_that_is_old_counts_no_more() -> None:
    trend = Trend()
    for device in range(40):
        trend.add(device, 0.0, 0.0, 900.0)
    for device in range(40, 60):
        trend.add(device, 1.0, 8 * 3600.0, 900.0)
    assert trend.at(8 * 3600.0) == 1.0


def test_agreement_counts_devices() -> None:
    rng = random.Random(5)
    old = sorted(rng.gauss(0, 0.05) for _ in range(80))
    assert Agreement([0.5, 0.5], old, 0.02).stops
    assert not Agreement(sorted([0.5, -0.1, -0.1]), old, 0.02).stops
    assert Agreement([-0.1] * 11 + [0.5] * 9, old, 0.02).stops  # far off, and two of five
    assert not Agreement([-0.1] * 12 + [0.5] * 8, old, 0.02).stops
    assert math.isclose(Agreement([-0.1] * 30, old, 0.02).to_stop, 10, abs_tol=4)
