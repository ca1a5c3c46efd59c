"""What a rollout does next: each rule by itself, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pilotwave_server.rollouts.engine.actions import (
    Abort,
    CallSilent,
    Complete,
    EndRollback,
    ExpireLeases,
    Measure,
    OpenNext,
    Pause,
    PlannedStep,
    RollBack,
    Soak,
    Start,
    Tell,
)
from pilotwave_server.rollouts.engine.picture import Moment, OpenWave, Picture
from pilotwave_server.rollouts.engine.plan import plan
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.policy import (
    Canary,
    Deadlines,
    OnFailure,
    Policy,
    Wave,
)
from pilotwave_server.rollouts.policies.shadow import ShadowPart
from pilotwave_server.rollouts.states import RolloutState as S

NOW = datetime(2026, 2, 1, 12, tzinfo=timezone.utc)
LONG_AGO = NOW - timedelta(days=30)
M = Moment(NOW, LONG_AGO, check_in_s=60)
TEN, ALL = Wave("ten", percent=10, min_sample=2, soak_s=600), Wave("all", percent=100)
PASS = Verdict("install", Word.PASS, "1 of 100 failed")
FAIL = Verdict("install", Word.FAIL, "9 of 10 failed", {"failed": 9})
WAIT = Verdict("install", Word.WAIT, "3 more devices")
UNCLEAR = Verdict("latency", Word.INCONCLUSIVE, "nobody reports latency_ms")


def ago(**by: float) -> datetime:
    return NOW - timedelta(**by)


def policy(*waves: Wave, **given: Any) -> Policy:
    return Policy("test", waves or (TEN, ALL), **given)


def picture(**given: Any) -> Picture:
    """A running rollout whose first wave has opened an hour ago."""
    known: dict[str, Any] = {
        "id": 1,
        "name": "r1",
        "state": S.RUNNING,
        "generation": 5,
        "policy": policy(),
        "model": "detector",
        "version": "1.1.0",
        "open": OpenWave(0, ago(hours=1)),
        "counts": {"healthy": 2},
        "verdicts": (PASS,),
        "check_in_s": 60,
    }
    return Picture(**{**known, **given})


def the_step(p: Picture, m: Moment = M) -> PlannedStep:
    steps = [action for action in plan(p, m) if isinstance(action, PlannedStep)]
    assert len(steps) == 1, plan(p, m)
    assert steps[0].generation == 5
    return steps[0]


def waits_for(p: Picture, m: Moment = M) -> dict[str, Any]:
    """What is written down; nothing else is done."""
    (tell,) = [a for a in plan(p, m) if not isinstance(a, Soak)]
    assert isinstance(tell, Tell), tell
    return dict(tell.verdict)


def soaked(wave: int = 0, **by: float) -> OpenWave:
    return OpenWave(wave, ago(hours=2), ago(**by))


def test_scheduled_rollout_starts_when_it_is_due() -> None:
    assert plan(picture(state=S.SCHEDULED, start_at=NOW + timedelta(seconds=1)), M) == []
    assert isinstance(the_step(picture(state=S.SCHEDULED, start_at=NOW)), Start)
    late = the_step(picture(state=S.SCHEDULED, start_at=NOW, withheld="it was denied"))
    assert isinstance(late, Abort)


@pytest.mark.parametrize("state", [S.DRAFT, S.AWAITING_APPROVAL, S.COMPLETED, S.ABORTED])
def test_engine_leaves_alone_what_is_not_under_way(state: S) -> None:
    assert plan(picture(state=state), M) == []


def test_first_wave_opens_at_once() -> None:
    step = the_step(picture(open=None, counts={}, verdicts=()))
    assert isinstance(step, OpenNext)
    assert step.wave == 0


def test_wave_waits_for_its_sample_which_is_measured_only_if_short() -> None:
    assert plan(picture(counts={"healthy": 1}), M) == [Measure("size")]
    told = waits_for(picture(counts={"healthy": 1, "switched": 3}, size=50))
    assert told["sentence"] == "1 of at least 2 devices finished, 3 in flight"
    # it is never more than there are devices
    (soak, _) = plan(picture(counts={"healthy": 1}, size=1), M)
    assert soak == Soak(1, 0, NOW)


def test_wave_that_takes_nobody_is_passed_over_but_a_canary_wave_is_waited_for() -> None:
    step = the_step(picture(counts={}, verdicts=(), size=0))
    assert isinstance(step, OpenNext)
    lab = Wave("lab", canary=Canary(devices=("cam-1",)))
    told = waits_for(picture(policy=policy(lab, ALL), counts={}, verdicts=(), size=0))
    assert told["sentence"].startswith("the open waves hold no device yet")


def test_gate_that_waits_holds_the_wave_and_ends_the_soak() -> None:
    assert plan(picture(open=soaked(seconds=60), verdicts=(PASS, WAIT)), M)[0] == Soak(1, 0, None)
    assert waits_for(picture(verdicts=(PASS, WAIT)))["gate"] == "install"


def test_wave_soaks_before_the_next_one_opens() -> None:
    told = waits_for(picture(open=soaked(seconds=599)))
    assert (told["gate"], told["word"]) == ("soak", "WAIT")
    assert isinstance(the_step(picture(open=soaked(seconds=600))), OpenNext)


def test_soak_that_began_in_a_future_that_is_none_begins_anew() -> None:
    (soak, _) = plan(picture(open=soaked(seconds=-3600)), M)
    assert soak == Soak(1, 0, NOW)


def test_after_a_break_devices_get_the_time_to_report_before_a_wave_opens() -> None:
    back = replace(M, listening_since=ago(seconds=30))
    assert waits_for(picture(open=soaked(days=1)), back)["gate"] == "soak"
    later = replace(M, listening_since=ago(seconds=120))
    assert isinstance(the_step(picture(open=soaked(days=1)), later), OpenNext)


def test_how_often_devices_report_is_measured_only_where_it_matters() -> None:
    unknown = picture(open=soaked(days=1), check_in_s=None)
    assert isinstance(the_step(unknown), OpenNext)
    back = replace(M, listening_since=ago(seconds=130))
    assert plan(unknown, back) == [Measure("check_in_s")]
    assert waits_for(replace(unknown, check_in_s=900), back)["gate"] == "soak"
    assert isinstance(the_step(replace(unknown, check_in_s=60), back), OpenNext)
    unclear = replace(unknown, verdicts=(UNCLEAR,), open=soaked(seconds=1000))
    assert plan(unclear, M) == [Measure("check_in_s")]
    assert waits_for(replace(unclear, check_in_s=900))["gate"] == "soak"
    assert isinstance(the_step(replace(unclear, check_in_s=60)), Pause)


def test_operator_opens_the_wave_after_a_manual_one() -> None:
    by_hand = policy(replace(TEN, manual=True), ALL)
    assert waits_for(picture(policy=by_hand, open=soaked(days=1)))["gate"] == "manual"


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED])
def test_gate_that_fails_rolls_back_even_a_paused_rollout(state: S) -> None:
    step = the_step(picture(state=state, verdicts=(PASS, FAIL, WAIT)))
    assert isinstance(step, RollBack)
    assert step.sentence == "rolled back: install: 9 of 10 failed"
    assert step.judged is not None
    assert step.judged["word"] == "FAIL"
    assert step.numbers["failed"] == 9


def test_gate_that_fails_pauses_where_the_policy_says_so() -> None:
    careful = policy(on_failure=OnFailure.PAUSE)
    step = the_step(picture(policy=careful, verdicts=(FAIL,)))
    assert isinstance(step, Pause)
    assert plan(picture(policy=careful, state=S.PAUSED, verdicts=(FAIL,)), M) == []


def test_failure_of_one_slice_is_named() -> None:
    nano = replace(FAIL, slice="hw=nano")
    assert the_step(picture(verdicts=(PASS, nano))).sentence.startswith(
        "rolled back: install, hw=nano"
    )


def test_what_cannot_be_judged_pauses_after_the_soak_and_two_reports() -> None:
    short = policy(replace(TEN, soak_s=0), ALL)
    told = waits_for(picture(policy=short, open=soaked(seconds=119), verdicts=(UNCLEAR,)))
    assert told["gate"] == "soak"
    step = the_step(picture(policy=short, open=soaked(seconds=120), verdicts=(UNCLEAR,)))
    assert isinstance(step, Pause)
    assert "nobody reports latency_ms" in step.sentence


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED])
def test_version_that_may_not_be_offered_any_more_is_rolled_back(state: S) -> None:
    step = the_step(picture(state=state, withheld="detector 1.1.0 was yanked"))
    assert isinstance(step, RollBack)
    assert step.sentence == "rolled back: detector 1.1.0 was yanked"


def test_rollout_past_its_end_is_paused() -> None:
    assert isinstance(the_step(picture(end_at=NOW)), Pause)
    assert plan(picture(end_at=NOW, state=S.PAUSED), M) == []


def test_last_wave_completes_once_nobody_is_left() -> None:
    last = {"open": soaked(1, days=1)}
    assert plan(picture(**last), M) == [Measure("left")]
    assert "7 devices have not started yet" in waits_for(picture(**last, left=7))["sentence"]
    flying = picture(**last, left=0, counts={"healthy": 2, "switched": 1})
    assert "1 in flight" in waits_for(flying)["sentence"]
    assert isinstance(the_step(picture(**last, left=0)), Complete)


def test_devices_that_never_come_have_a_deadline_that_runs_while_the_server_listens() -> None:
    hour = policy(deadlines=Deadlines(unreached_s=3600))
    p = picture(policy=hour, open=soaked(1, days=1), left=7, last_change=ago(hours=2))
    step = the_step(p)
    assert isinstance(step, Complete)
    assert step.numbers["unreached"] == 7
    fresh = replace(M, listening_since=ago(minutes=59))
    assert waits_for(p, fresh)["gate"] == "unreached"


def test_overdue_leases_and_silent_devices_are_swept() -> None:
    found = plan(picture(idle_leases=1, silent=(60, None), state=S.PAUSED), M)
    assert [type(action) for action in found] == [ExpireLeases, CallSilent, CallSilent]


def test_a_device_is_never_silent_before_two_of_its_reports_are_due() -> None:
    eager = policy(deadlines=Deadlines(silent_s=60))
    assert M.silent_s(eager, 900) == 1800
    assert replace(M, check_in_s=900).silent_s(eager, None) == 1800


def test_rollback_ends_when_nobody_runs_it_or_has_been_heard_for_long() -> None:
    back = picture(state=S.ROLLING_BACK, rolling_back_since=ago(seconds=60), still_on=3)
    assert plan(back, M) == []
    assert isinstance(the_step(replace(back, still_on=0)), EndRollback)
    tried = Wave("tried", percent=10, shadow=ShadowPart())
    in_shadow = replace(back, still_on=0, policy=policy(tried, TEN, ALL))
    assert the_step(in_shadow).sentence == "no device had switched to the version"
    step = the_step(replace(back, rolling_back_since=ago(days=1)))
    assert "3 devices" in step.sentence


def test_same_sentence_is_written_once_and_new_numbers_now_and_then() -> None:
    p = picture(counts={"healthy": 1, "switched": 3}, size=50)
    told = waits_for(p)
    assert plan(replace(p, open=OpenWave(0, ago(hours=1), None, told)), M) == []
    more = replace(p, counts={"healthy": 1, "switched": 4})
    assert plan(replace(more, open=OpenWave(0, ago(hours=1), None, told)), M) == []
    later = replace(M, now=NOW + timedelta(seconds=6))
    assert len(plan(replace(more, open=OpenWave(0, ago(hours=1), None, told)), later)) == 1


TRIED = Wave("tried", percent=5, min_sample=3, shadow=ShadowPart(min_calls=500))
OPTIONAL = replace(TRIED, shadow=ShadowPart(min_calls=500, optional=True))


def in_shadow(wave: Wave = TRIED, **given: Any) -> Picture:
    """A shadow wave in which three devices have tried the version for an hour."""
    deadlines = given.pop("deadlines", Deadlines())
    known: dict[str, Any] = {
        "policy": policy(wave, ALL, deadlines=deadlines),
        "counts": {"healthy": 3},
        "size": 5,
        "shadow_since": ago(hours=1),
        "comparing": 3,
        "compared": 3,
    }
    return picture(**{**known, **given})


def test_shadow_wave_counts_devices_that_compared_enough_calls() -> None:
    assert isinstance(the_step(in_shadow()), OpenNext)
    told = waits_for(in_shadow(compared=2))
    assert told["sentence"] == "2 of at least 3 devices compared 500 calls each, 0 in flight"
    # a device on which it failed has been heard
    assert isinstance(the_step(in_shadow(compared=2, counts={"healthy": 2, "failed": 1})), OpenNext)
    # no more are needed than there are
    assert isinstance(the_step(in_shadow(compared=2, size=2)), OpenNext)
    assert plan(in_shadow(size=None), M) == [Measure("size")]


def test_failed_shadow_says_that_nobody_met_the_version() -> None:
    step = the_step(in_shadow(verdicts=(FAIL,)))
    assert isinstance(step, RollBack)
    assert step.sentence == "rolled back: install: 9 of 10 failed. No user has met the version"
    assert the_step(picture(verdicts=(FAIL,))).sentence == "rolled back: install: 9 of 10 failed"


NOBODY = {
    "none can": ({"size": 0, "counts": {}, "shadow_since": None}, "no device of the wave can try"),
    "none compares": ({"comparing": 0}, "no application has compared a call in 30m on 3 devices"),
    "too few, too late": (
        {"compared": 1, "deadlines": Deadlines(unreached_s=600)},
        "1 of at least 3 devices compared 500 calls each, 0 in flight, within 10m",
    ),
}


@pytest.mark.parametrize("case", NOBODY)
def test_shadow_in_which_nobody_takes_part_is_for_a_person_or_passed_over(case: str) -> None:
    given, told = NOBODY[case]
    fewer: dict[str, Any] = {**({"compared": 0} if "comparing" in given or "size" in given else {})}
    step = the_step(in_shadow(**{**fewer, **given}))
    assert isinstance(step, Pause)
    assert step.sentence.startswith(f"paused for a person to decide: shadow: {told}")
    assert step.judged is not None
    assert step.judged["gates"][-1]["word"] == "INCONCLUSIVE"
    step = the_step(in_shadow(OPTIONAL, **{**fewer, **given}))
    assert isinstance(step, OpenNext)
    assert f"the wave is optional: shadow: {told}" in step.sentence
    resumed = in_shadow(**{**fewer, **given}, verdicts=(WAIT,), overruled=frozenset({"shadow"}))
    assert isinstance(the_step(resumed), OpenNext)


def test_shadow_that_nobody_answers_yet_has_time_to() -> None:
    early = in_shadow(comparing=0, compared=0, shadow_since=ago(minutes=20))
    assert waits_for(early)["word"] == "WAIT"
    begins = in_shadow(comparing=0, compared=0, counts={"healthy": 1, "leased": 1})
    assert waits_for(begins)["word"] == "WAIT"


def test_gate_that_hears_nothing_holds_up_no_optional_shadow() -> None:
    mute = Verdict("latency", Word.INCONCLUSIVE, "no device has reported it", {"windows": 0})
    assert isinstance(the_step(in_shadow(OPTIONAL, verdicts=(PASS, mute))), OpenNext)
    soaking = soaked(hours=1)
    assert isinstance(the_step(in_shadow(verdicts=(PASS, mute), open=soaking)), Pause)
