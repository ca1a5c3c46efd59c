"""What the device does next, rule by rule, and that no history of luck leads it astray."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave_agent.core import outcomes
from pilotwave_agent.core import records as core_records
from pilotwave_agent.core.machine import TURN_S, next_step
from pilotwave_agent.core.shadow import is_shadow, kept_out
from pilotwave_agent.core.state import DeviceState, Failure, ModelSlot, Order, Probation, Telling
from pilotwave_agent.core.steps import (
    ClearAway,
    Confirm,
    Fetch,
    Memo,
    Moment,
    Move,
    Probe,
    Rest,
    Restore,
    Rules,
    Stage,
    Step,
    Switch,
    Trial,
    Wait,
)
from pilotwave_agent.core.ties import is_tested, mates, waits_for
from pilotwave_agent.core.ways_back import step_back, ways_back
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState, Reason, may_follow

S = ModelState
NOW = Moment(wall=1_800_000_000.0, uptime=1000.0, boot="a")
RULES = Rules(probation_s=60, interval_s=10, failures=2)


def version(number: int) -> Installed:
    return Installed(f"1.{number}.0", f"{number:064x}", "onnx", number)


V1, V2, V3 = version(1), version(2), version(3)


def order(wanted: Installed, *, model: str = "detector", **more: Any) -> Order:
    return Order(model, wanted.version, wanted.sha256, 1, wanted.counter, wanted.variant, **more)


def device(*slots: ModelSlot, orders: tuple[Order, ...] = (), **more: Any) -> DeviceState:
    models = {slot.model: slot for slot in slots}
    return DeviceState(models, {o.model: o for o in orders}, NOW.wall + 1000, **more)


def slot(state: ModelState, current: Installed | None = V1, **more: Any) -> ModelSlot:
    known = {"last_healthy": current, **more}
    if state is S.PROBATION:
        known.setdefault("watch", Probation("a", NOW.uptime))
    return ModelSlot("detector", state, current, **known)


def step(state: DeviceState, now: Moment = NOW, memo: Memo | None = None) -> Step:
    return next_step(state, now, RULES, memo)


def moved_to(found: Step) -> tuple[ModelState, str | None]:
    assert isinstance(found, Move), found
    return core_records.state_after(found.record), found.record["set"].get("reason")


SHADOW = {"conditions": {"shadow": {"share": 0.05, "cpu": 0.1, "min_calls": 500}}}


# what follows from a state, an order and what is remembered; each row tells one story
STORIES = [
    (
        "what was never installed and is ordered no more is forgotten",
        slot(S.IDLE, None),
        None,
        {},
        Move(core_records.removed(slot(S.IDLE, None), at=NOW.wall)),
    ),
    ("an order begins a fetch", slot(S.IDLE, None), order(V1), {}, S.FETCHING),
    ("what is ordered runs already", slot(S.HEALTHY), order(V1), {}, Rest()),
    ("another version is ordered", slot(S.HEALTHY), order(V2), {}, S.FETCHING),
    ("an absent model keeps what it has", slot(S.HEALTHY), None, {}, Rest()),
    (
        "a dropped order drops the candidate",
        slot(S.STAGED, candidate=V2),
        None,
        {},
        S.HEALTHY,
    ),
    (
        "an order for what runs drops the candidate",
        slot(S.FETCHING, candidate=V2),
        order(V1),
        {},
        S.HEALTHY,
    ),
    (
        "a newer order replaces the candidate",
        slot(S.TESTING, candidate=V2),
        order(V3),
        {},
        S.FETCHING,
    ),
    (
        "a switch that has begun is finished, whatever is ordered",
        slot(S.SWITCHING, candidate=V2),
        order(V3),
        {},
        Switch("detector"),
    ),
    (
        "a yanked order is not followed",
        slot(S.HEALTHY),
        order(V2),
        {"yanked": frozenset({V2.sha256})},
        (S.FAILED, Reason.YANKED),
    ),
    (
        "a candidate yanked on its way is dropped",
        slot(S.TESTING, candidate=V2),
        order(V2),
        {"yanked": frozenset({V2.sha256})},
        (S.FAILED, Reason.YANKED),
    ),
    (
        "an order below the floor is not followed",
        slot(S.HEALTHY, V2),
        order(V1),
        {"floors": {"detector": 2}},
        (S.FAILED, Reason.BELOW_FLOOR),
    ),
    (
        "a running version that is yanked is left at once",
        slot(S.HEALTHY, V2, previous=V1),
        order(V2),
        {"yanked": frozenset({V2.sha256})},
        (S.ROLLING_BACK, Reason.YANKED),
    ),
    (
        "a yanked version with nothing to go back to says so and stays",
        slot(S.HEALTHY, V2),
        order(V2),
        {"yanked": frozenset({V2.sha256})},
        (S.FAILED, Reason.YANKED),
    ),
    (
        "which is said once",
        slot(S.FAILED, V2, candidate=V2, reason="yanked"),
        order(V2),
        {"yanked": frozenset({V2.sha256})},
        Rest(),
    ),
    (
        "a running version damaged on disk is left at once",
        slot(S.HEALTHY, V2, previous=V1, damaged=True),
        order(V2),
        {},
        (S.ROLLING_BACK, Reason.BLOB_MISMATCH),
    ),
    (
        "a damaged version with nothing to go back to is fetched anew",
        slot(S.HEALTHY, V2, damaged=True),
        order(V2),
        {},
        S.FETCHING,
    ),
    (
        "what is damaged while another is fetched is left first",
        slot(S.FETCHING, V2, previous=V1, candidate=V3, damaged=True),
        order(V3),
        {},
        S.HEALTHY,
    ),
    (
        "a version that failed here is not tried again",
        slot(S.HEALTHY, failures=(Failure(V2.sha256, "onnx", 0, "selftest_nan"),)),
        order(V2),
        {},
        (S.FAILED, Reason.FAILED_HERE_BEFORE),
    ),
    (
        "a retry by an operator tries it again",
        slot(S.HEALTHY, failures=(Failure(V2.sha256, "onnx", 0, "selftest_nan"),)),
        order(V2, attempt=1),
        {},
        S.FETCHING,
    ),
    (
        "another variant of a version that failed may be tried",
        slot(S.HEALTHY, failures=(Failure(V2.sha256, "tflite", 0, "selftest_nan"),)),
        order(V2),
        {},
        S.FETCHING,
    ),
    (
        "a failed model whose order returns to what runs is healthy",
        slot(S.FAILED, candidate=V2),
        order(V1),
        {},
        S.HEALTHY,
    ),
    (
        "a model rolled back whose order agrees is healthy",
        slot(S.ROLLED_BACK, V1, last_healthy=V2, candidate=V2),
        order(V1),
        {},
        S.HEALTHY,
    ),
    (
        "probation is not cut short by the next version",
        slot(S.PROBATION, V2, last_healthy=V1),
        order(V3),
        {},
        Wait(10.0),
    ),
    (
        "probation is cut short by an operator's pin",
        slot(S.PROBATION, V2, last_healthy=V1),
        order(V3, reason="pin"),
        {},
        S.FETCHING,
    ),
    (
        "an order for the version before leads back to it",
        slot(S.HEALTHY, V2, previous=V1, last_healthy=V2),
        order(V1),
        {},
        (S.ROLLING_BACK, Reason.OPERATOR_ROLLBACK),
    ),
    (
        "the way back that is ordered waits for no probation",
        slot(S.PROBATION, V2, previous=V1, last_healthy=V1),
        order(V1),
        {},
        (S.ROLLING_BACK, Reason.OPERATOR_ROLLBACK),
    ),
    (
        "on the way back, what is ordered comes before what is newer",
        slot(S.ROLLING_BACK, V3, previous=V2, last_healthy=V1),
        order(V1),
        {},
        Restore("detector", (V1, V2)),
    ),
    (
        "an older version that is not on the disk is fetched",
        slot(S.HEALTHY, V3, previous=V2, last_healthy=V3),
        order(V1),
        {},
        S.FETCHING,
    ),
    (
        "a way back that ended elsewhere goes on with a fetch",
        slot(S.ROLLED_BACK, V2, previous=V1, last_healthy=V2),
        order(V1),
        {},
        S.FETCHING,
    ),
    (
        "what is ordered to be tried in shadow is fetched",
        slot(S.HEALTHY),
        order(V2, **SHADOW),
        {},
        S.FETCHING,
    ),
    (
        "and stays in shadow once it is tested",
        slot(S.TESTING, candidate=V2, tested=V2),
        order(V2, **SHADOW),
        {},
        S.SHADOWING,
    ),
    (
        "as long as it is ordered so",
        slot(S.SHADOWING, candidate=V2, tested=V2),
        order(V2, **SHADOW),
        {},
        Rest(),
    ),
    (
        "nothing is switched for a condition that cannot be read",
        slot(S.TESTING, candidate=V2, tested=V2),
        order(V2, conditions={"shadow": "5%"}),
        {},
        S.SHADOWING,
    ),
    (
        "ordered in earnest it has nothing left but the switch",
        slot(S.SHADOWING, candidate=V2, tested=V2),
        order(V2),
        {},
        S.TESTING,
    ),
    (
        "for which it may be ordered back into shadow before it begins",
        slot(S.TESTING, candidate=V2, tested=V2, reason="waiting_window"),
        order(V2, **SHADOW),
        {},
        S.SHADOWING,
    ),
    (
        "a shadow that is ordered no more is forgotten",
        slot(S.SHADOWING, candidate=V2, tested=V2),
        None,
        {},
        S.HEALTHY,
    ),
    (
        "so is one whose order names what runs",
        slot(S.SHADOWING, candidate=V2, tested=V2),
        order(V1),
        {},
        S.HEALTHY,
    ),
    (
        "another version in shadow replaces the candidate",
        slot(S.SHADOWING, candidate=V2, tested=V2),
        order(V3, **SHADOW),
        {},
        S.FETCHING,
    ),
    (
        "a candidate in shadow that is yanked is dropped",
        slot(S.SHADOWING, candidate=V2, tested=V2),
        order(V2, **SHADOW),
        {"yanked": frozenset({V2.sha256})},
        (S.FAILED, Reason.YANKED),
    ),
    (
        "what runs is yanked beside a shadow: the shadow ends first",
        slot(S.SHADOWING, V2, previous=V1, candidate=V3, tested=V3),
        order(V3, **SHADOW),
        {"yanked": frozenset({V2.sha256})},
        S.HEALTHY,
    ),
    (
        "and nothing is tried beside what should not run",
        slot(S.HEALTHY, V2),
        order(V3, **SHADOW),
        {"yanked": frozenset({V2.sha256})},
        (S.FAILED, Reason.YANKED),
    ),
    (
        "nor beside what is damaged",
        slot(S.SHADOWING, V2, candidate=V3, tested=V3, damaged=True),
        order(V3, **SHADOW),
        {},
        S.HEALTHY,
    ),
    (
        "no version is tried beside itself",
        slot(S.FAILED, V2, candidate=V3),
        order(V2, **SHADOW),
        {},
        Rest(),
    ),
    (
        "an older version is tried in shadow without a way back to it",
        slot(S.HEALTHY, V2, previous=V1, last_healthy=V2),
        order(V1, **SHADOW),
        {},
        S.FETCHING,
    ),
    (
        "no shadow cuts a probation short",
        slot(S.PROBATION, V2, last_healthy=V1),
        order(V3, reason="pin", **SHADOW),
        {},
        Wait(10.0),
    ),
    (
        "a switch that has begun is finished, whatever is to be tried",
        slot(S.SWITCHING, candidate=V2),
        order(V2, **SHADOW),
        {},
        Switch("detector"),
    ),
]


@pytest.mark.parametrize(
    ("known", "wish", "memory", "expected"),
    [row[1:] for row in STORIES],
    ids=[row[0].replace(" ", "-") for row in STORIES],
)
def test_story(known: ModelSlot, wish: Order | None, memory: Any, expected: Any) -> None:
    state = device(known, orders=(wish,) if wish else (), memory=AntiRollback(**memory))
    found = step(state)
    if isinstance(expected, ModelState):
        assert moved_to(found)[0] is expected
    elif isinstance(expected, tuple):
        assert moved_to(found) == expected
    else:
        assert found == expected


def test_story_ends_where_it_says() -> None:
    """What was refused once is said once: the same order leads to no further move."""
    state = device(
        slot(S.HEALTHY), orders=(order(V2),), memory=AntiRollback(0, "", {"detector": 9})
    )
    for _ in range(3):
        found = step(state)
        if isinstance(found, Move):
            state = core_records.apply(state, found.record)
    assert step(state) == Rest()


class TestAlone:
    """Each model goes its way, whatever the others wait for."""

    def state(self, other: ModelState, **more: Any) -> DeviceState:
        ready = ModelSlot("a", S.STAGED, V1, candidate=V2)
        late = ModelSlot("b", other, V1, candidate=V2, **more)
        return device(ready, late, orders=(order(V2, model="a"), order(V2, model="b")))

    @pytest.mark.parametrize("other", [S.FETCHING, S.VERIFYING, S.STAGED])
    def test_what_is_staged_goes_before_what_is_still_to_come(self, other: ModelState) -> None:
        assert moved_to(step(self.state(other)))[0] is S.TESTING

    def test_one_that_cannot_be_had_holds_up_no_other(self) -> None:
        found = step(self.state(S.FETCHING), memo=Memo(frozenset({"b"})))
        assert moved_to(found)[0] is S.TESTING

    def test_several_are_fetched_in_turn(self) -> None:
        one, two = (ModelSlot(name, S.FETCHING, V1, candidate=V2) for name in "ab")
        state = device(one, two, orders=(order(V2, model="a"), order(V2, model="b")))
        assert step(state) == Fetch("a", TURN_S)
        assert step(state, memo=Memo(fetched={"a": 5.0})) == Fetch("b", TURN_S)
        assert step(state, memo=Memo(fetched={"a": 5.0, "b": 9.0})) == Fetch("a", TURN_S)


TIED = {"conditions": {"together": ["b"]}}


class TestTogether:
    """Models that an order ties are tested once all are staged, and switched once all passed."""

    def state(self, first: ModelSlot, other: ModelSlot) -> DeviceState:
        return device(first, other, orders=(order(V2, model="a", **TIED), order(V2, model="b")))

    def staged(self, model: str = "a") -> ModelSlot:
        return ModelSlot(model, S.STAGED, V1, candidate=V2)

    def passed(self, model: str = "a") -> ModelSlot:
        return ModelSlot(model, S.TESTING, V1, candidate=V2, tested=V2)

    def coming(self, state: ModelState) -> ModelSlot:
        return ModelSlot("b", state, V1, candidate=V2)

    def test_waits_for_the_one_that_is_fetched(self) -> None:
        assert step(self.state(self.staged(), self.coming(S.FETCHING))) == Fetch("b")

    def test_waits_even_while_that_one_cannot_be_had(self) -> None:
        state = self.state(self.staged(), self.coming(S.FETCHING))
        assert step(state, memo=Memo(frozenset({"b"}))) == Rest()
        assert "b 1.2.0 is not staged yet" in str(waits_for(state, state.slot("a"), {"b"}))

    def test_it_holds_for_the_one_that_is_named_as_well(self) -> None:
        first = ModelSlot("a", S.FETCHING, V1, candidate=V2)
        state = self.state(first, self.staged("b"))
        assert step(state) == Fetch("a")

    def test_is_tested_once_both_are_staged(self) -> None:
        assert moved_to(step(self.state(self.staged(), self.staged("b"))))[0] is S.TESTING

    def test_does_not_switch_before_both_have_passed(self) -> None:
        state = self.state(self.passed(), ModelSlot("b", S.TESTING, V1, candidate=V2))
        assert step(state) == Trial("b")

    def test_both_switch_once_both_have_passed(self) -> None:
        state = self.state(self.passed(), self.passed("b"))
        for model in ("a", "b"):
            found = step(state)
            assert isinstance(found, Move)
            assert (found.record["m"], found.record["s"]) == (model, "switching")
            state = core_records.apply(state, found.record)
            assert step(state) == Switch(model)
            slot = state.slot(model)
            state = core_records.apply(state, outcomes.switched(slot, NOW))

    def test_neither_switches_while_the_other_is_held(self) -> None:
        state = self.state(self.passed(), replace(self.passed("b"), reason="waiting_window"))
        assert step(state, memo=Memo(frozenset({"b"}))) == Rest()

    def test_what_has_begun_is_finished_whatever_holds(self) -> None:
        """A power cut between two switches leaves the first done, or begun."""
        begun = ModelSlot("b", S.SWITCHING, V1, candidate=V2)
        state = self.state(self.passed(), begun)
        assert step(state) == Switch("b")
        state = core_records.apply(state, outcomes.switched(begun, NOW))
        assert moved_to(step(state))[0] is S.SWITCHING

    def test_one_that_failed_its_test_keeps_the_other_from_switching(self) -> None:
        failed = ModelSlot("b", S.FAILED, V1, candidate=V2, failures=(FAILED_V2,))
        state = self.state(self.passed(), failed)
        assert step(state) == Rest()
        assert "b 1.2.0 failed here (selftest_load)" in str(waits_for(state, state.slot("a"), ()))

    def test_one_that_is_taken_back_takes_the_other_back(self) -> None:
        for state_of_a in (S.PROBATION, S.HEALTHY):
            well = ModelSlot("a", state_of_a, V2, V1, V1, watch=Probation("a", NOW.uptime))
            bad = ModelSlot("b", S.ROLLED_BACK, V1, V2, V1, candidate=V2, failures=(FAILED_V2,))
            found = step(self.state(well, bad))
            assert moved_to(found) == (S.ROLLING_BACK, Reason.TOGETHER_ROLLBACK)
            assert isinstance(found, Move)
            assert "failed" not in found.record  # nothing is held against the version itself

    def test_a_model_that_is_named_and_not_ordered_ties_nobody(self) -> None:
        state = device(self.staged(), orders=(order(V2, model="a", **TIED),))
        assert moved_to(step(state))[0] is S.TESTING

    def test_ties_go_on_from_one_to_the_next(self) -> None:
        orders = (
            order(V2, model="a", conditions={"together": ["b"]}),
            order(V2, model="b"),
            order(V2, model="c", conditions={"together": ["b", "x"]}),
            order(V2, model="d"),
        )
        state = device(orders=orders)
        assert mates(state, "a") == ("b", "c")
        assert mates(state, "b") == ("a", "c")
        assert mates(state, "d") == ()


FAILED_V2 = Failure(V2.sha256, "onnx", 0, "selftest_load")


def test_a_fetch_does_not_outlive_its_directive() -> None:
    state = device(slot(S.FETCHING, candidate=V2), orders=(order(V2),))
    late = replace(NOW, wall=state.orders_expire)
    found = step(state, late)
    assert moved_to(found) == (S.FETCHING, Reason.DIRECTIVE_EXPIRED)
    assert isinstance(found, Move)
    assert step(core_records.apply(state, found.record), late) == Rest()


class TestTelling:
    """The switch is final when the application has taken it, and taken back when it has not."""

    def at(self, seconds: float, *, boot: str = "a", asked: float | None = None) -> Step:
        telling = Telling("a", NOW.uptime, 30.0, told=True)
        state = device(slot(S.SWITCHING, candidate=V2, telling=telling), orders=(order(V2),))
        memo = Memo(asked={} if asked is None else {"detector": NOW.uptime + asked})
        return step(state, Moment(NOW.wall, NOW.uptime + seconds, boot), memo)

    def test_it_is_told_first(self) -> None:
        begun = slot(S.SWITCHING, candidate=V2, telling=Telling("a", NOW.uptime, 30.0))
        assert step(device(begun)) == Switch("detector")

    def test_it_is_asked_at_once_and_then_now_and_then(self) -> None:
        assert self.at(0) == Confirm("detector", last=False)
        assert self.at(0.05, asked=0) == Wait(pytest.approx(0.15))
        assert self.at(0.25, asked=0) == Confirm("detector", last=False)
        assert self.at(20, asked=20) == Wait(pytest.approx(2))

    def test_it_is_asked_a_last_time_when_its_time_is_over(self) -> None:
        assert self.at(29.5, asked=29) == Wait(pytest.approx(0.5))
        assert self.at(30, asked=29.5) == Confirm("detector", last=True)

    def test_it_is_told_again_after_a_restart_of_the_machine(self) -> None:
        assert self.at(1, boot="b") == Switch("detector")

    def test_restarts_are_counted(self) -> None:
        known = slot(S.SWITCHING, candidate=V2)
        for boots, boot in enumerate("aabc"):
            state = core_records.apply(
                device(known), outcomes.telling(known, replace(NOW, boot=boot), 30)
            )
            known = state.slot("detector")
            assert known.telling
            assert known.telling.boots == max(boots, 1)

    def test_what_it_says_before_the_agent_has_noted_that_it_was_told_counts(self) -> None:
        known = slot(S.SWITCHING, candidate=V2)
        state = core_records.apply(device(known), outcomes.telling(known, NOW, 30))
        later = replace(NOW, uptime=NOW.uptime + 5)
        told = outcomes.told(state.slot("detector"), later, 30)
        telling = core_records.apply(state, told).slot("detector").telling
        assert telling == Telling("a", later.uptime, 30, told=True, begun=NOW.uptime)

    def test_what_is_not_taken_goes_back_and_counts_as_failed_here(self) -> None:
        known = slot(S.SWITCHING, candidate=V2, telling=Telling("a", NOW.uptime, 30.0, told=True))
        no = RefusedError(Reason.APP_SILENT, "not a word")
        state = core_records.apply(device(known), outcomes.not_taken(known, no, NOW))
        assert step(state) == Restore("detector", (V1,))
        after = state.slot("detector")
        assert after.telling is None
        assert after.failed_here(V2, 0)

    def test_others_are_seen_to_meanwhile(self) -> None:
        telling = Telling("a", NOW.uptime, 30.0, told=True)
        told = slot(S.SWITCHING, candidate=V2, telling=telling)
        other = ModelSlot("other", S.FETCHING, candidate=V3)
        state = device(told, other, orders=(order(V2), order(V3, model="other")))
        memo = Memo(asked={"detector": NOW.uptime})
        assert step(state, memo=memo) == Fetch("other", pytest.approx(0.2))


def test_numbers_rise_with_each_switch_even_where_the_journal_was_lost() -> None:
    known = slot(S.TESTING, candidate=V2)
    first = known.numbered(V2, 1000.7)[-1]
    assert first.number == 1000
    known = replace(known, numbers=(first,), previous=V2)
    (kept, second) = known.numbered(V3, 900.0)  # the clock was set back
    assert (kept, second.number) == (first, 1001)
    assert replace(known, numbers=(kept, second)).number_of(V2) == 1000
    assert slot(S.TESTING).numbered(V2, 2000.0)[-1].number == 2000  # nothing is known any more


class TestProbation:
    def at(self, seconds: float, *, boot: str = "a", memo: Memo | None = None) -> Step:
        state = device(slot(S.PROBATION, V2, previous=V1, last_healthy=V1), orders=(order(V2),))
        return step(state, Moment(NOW.wall, NOW.uptime + seconds, boot), memo)

    def test_probes_when_the_interval_is_over(self) -> None:
        assert self.at(9.5) == Wait(0.5)
        assert self.at(10) == Probe("detector", last=False)

    def test_knows_from_the_process_when_it_probed_last(self) -> None:
        assert self.at(15, memo=Memo(probed={"detector": NOW.uptime + 10})) == Wait(5)

    def test_ends_with_a_last_probe(self) -> None:
        assert self.at(60) == Probe("detector", last=True)

    def test_starts_anew_in_a_new_boot(self) -> None:
        found = self.at(-900, boot="b")
        assert isinstance(found, Move)
        assert found.record["set"]["watch"]["started"] == NOW.uptime - 900

    def test_a_model_that_takes_the_machine_down_fails_it(self) -> None:
        state = device(slot(S.PROBATION, V2, previous=V1, last_healthy=V1))
        boots = 0
        while isinstance(found := step(state, replace(NOW, boot=f"boot {boots}")), Move):
            state, boots = core_records.apply(state, found.record), boots + 1
        assert boots == RULES.boots
        assert found == Restore("detector", (V1,))

    def test_enough_failures_in_a_row_take_it_back(self) -> None:
        known = slot(S.PROBATION, V2, previous=V1, last_healthy=V1)
        no = RefusedError(Reason.PROBE_FAILED, "it is not well")
        state = device(known, orders=(order(V2),))
        states = []
        for _ in range(RULES.failures):
            record = outcomes.probed(
                state.slot("detector"), no, NOW, RULES, last=True, order=order(V2)
            )
            assert record
            state = core_records.apply(state, record)
            states.append(state.slot("detector").state)
        assert states == [S.PROBATION, S.ROLLING_BACK]

    def test_a_pass_between_failures_starts_the_count_anew(self) -> None:
        known = slot(S.PROBATION, V2, watch=Probation("a", NOW.uptime, failures=1))
        record = outcomes.probed(known, None, NOW, RULES, last=False, order=None)
        assert record
        after = core_records.apply(device(known), record).slot("detector")
        assert after.watch == Probation("a", NOW.uptime)

    def test_a_pass_writes_nothing(self) -> None:
        known = slot(S.PROBATION, V2)
        assert outcomes.probed(known, None, NOW, RULES, last=False, order=None) is None


class TestWayBack:
    def test_leads_to_the_previous_version_first(self) -> None:
        assert ways_back(slot(S.HEALTHY, V3, previous=V2, last_healthy=V1), AntiRollback()) == (
            V2,
            V1,
        )

    def test_never_leads_to_a_yanked_version(self) -> None:
        known = slot(S.HEALTHY, V3, previous=V2, last_healthy=V1)
        memory = AntiRollback(yanked=frozenset({V2.sha256}))
        assert ways_back(known, memory) == (V1,)

    def test_never_leads_below_the_floor(self) -> None:
        known = slot(S.HEALTHY, V3, previous=V2, last_healthy=V1)
        assert ways_back(known, AntiRollback(floors={"detector": 2})) == (V2,)

    def test_never_leads_to_what_failed_here(self) -> None:
        known = slot(S.HEALTHY, V3, previous=V2, last_healthy=V1, failures=(FAILED_V2,))
        assert ways_back(known, AntiRollback()) == (V1,)

    def test_a_person_at_the_device_may_ask_for_it(self) -> None:
        known = slot(S.HEALTHY, V2, previous=V1)
        state = device(known, orders=(order(V2, attempt=4),))
        for record in step_back(known, order(V2, attempt=4), AntiRollback(), at=NOW.wall):
            state = core_records.apply(state, record)
        assert step(state) == Restore("detector", (V1,))
        # the order still stands at attempt 4, and does not bring back what was just left
        state = core_records.apply(state, outcomes.restored(state.slot("detector"), V1, "", NOW))
        assert step(state) == Rest()

    def test_a_person_may_ask_while_another_version_is_fetched(self) -> None:
        known = slot(S.FETCHING, V2, previous=V1, candidate=V3)
        records = step_back(known, None, AntiRollback(), at=NOW.wall)
        assert [r["s"] for r in records] == ["healthy", "rolling_back"]

    def test_a_person_may_ask_while_another_version_is_tried_in_shadow(self) -> None:
        known = slot(S.SHADOWING, V2, previous=V1, candidate=V3, tested=V3)
        first, second = step_back(known, None, AntiRollback(), at=NOW.wall)
        assert first["event"]["kind"] == "shadow_ended"
        assert [first["s"], second["s"]] == ["healthy", "rolling_back"]

    def test_with_nothing_to_go_back_to_nothing_is_recorded(self) -> None:
        assert step_back(slot(S.HEALTHY, V2), None, AntiRollback(), at=NOW.wall) == []


@pytest.mark.parametrize("before", list(ModelState))
@pytest.mark.parametrize("after", list(ModelState))
def test_no_record_is_made_of_a_step_that_the_table_forbids(
    before: ModelState, after: ModelState
) -> None:
    known = ModelSlot("detector", before)
    if after is before or may_follow(before, after):
        record = core_records.moved(known, after, at=0.0)
        assert core_records.apply(DeviceState(), record).slot("detector").state is after
    else:
        with pytest.raises(ValueError, match="no step leads from"):
            core_records.moved(known, after, at=0.0)


# --- any history of orders, yanks, luck and bad luck

NO = st.sampled_from([None, Reason.SELFTEST_LOAD, Reason.BLOB_MISMATCH, Reason.PROBE_FAILED])
ACTS = st.one_of(
    st.tuples(
        st.just("order"),
        st.dictionaries(
            st.sampled_from(["a", "b"]),
            st.tuples(st.integers(1, 4), st.integers(0, 2), st.booleans()),
        ),
    ),
    st.tuples(st.just("yank"), st.integers(1, 3)),
    st.tuples(st.just("damage"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("boot"), st.integers(1, 9)),
)


class World:
    """The machine with effects that succeed or fail as a list says."""

    def __init__(self, luck: list[Reason | None], *, tells: bool, tied: bool = False) -> None:
        self.tied = {"together": ["a", "b"]} if tied else {}
        self.state, self.luck, self.tells = DeviceState(), luck, tells
        self.asked: dict[str, float] = {}
        self.numbers: dict[tuple[str, int], Installed] = {}
        self.uptime, self.boot = 0.0, 0
        self.probed: dict[str, float] = {}

    def record(self, record: core_records.Record | None) -> None:
        if record:
            self.state = core_records.apply(self.state, record)

    def conditions(self, shadow: bool) -> dict[str, Any]:
        return {**self.tied, **(SHADOW["conditions"] if shadow else {})}

    def now(self) -> Moment:
        return Moment(0.0, self.uptime, str(self.boot))

    def act(self, kind: str, what: Any) -> None:
        if kind == "order":
            orders = {
                m: order(version(n), model=m, attempt=attempt, conditions=self.conditions(shadow))
                for m, (n, attempt, shadow) in what.items()
            }
            self.state = replace(self.state, orders=orders, orders_expire=1.0)
        elif kind == "yank":
            memory = AntiRollback(yanked=frozenset({version(what).sha256}))
            self.record(core_records.learned(memory, {}, at=0.0))
        elif kind == "boot":
            self.boot += 1
        elif (found := self.state.models.get(what)) and found.current:
            self.record(core_records.moved(found, found.state, at=0.0, damaged=True))

    def settle(self) -> None:
        """Take steps until there is nothing to do; a history that never ends fails."""
        parked: set[str] = set()
        for _ in range(300):
            held = {m for m, known in self.state.models.items() if kept_out(self.state, known)}
            memo = Memo(frozenset(parked | held), self.probed, self.asked)
            found = next_step(self.state, self.now(), RULES, memo)
            if isinstance(found, Rest):
                return
            self.take(found, parked)
        raise AssertionError(f"no end: {found} {self.state.models} {self.state.orders}")

    def take(self, found: Step, parked: set[str]) -> None:
        if isinstance(found, Move):
            return self.record(found.record)
        if isinstance(found, Wait):
            self.uptime += found.seconds
            return None
        known = self.state.slot(getattr(found, "model"))  # noqa: B009 - all others have one
        reason = self.luck.pop() if self.luck else None
        no = RefusedError(reason, "bad luck") if reason else None
        self.record(self.outcome(found, known, no, parked))
        return None

    def outcome(
        self, found: Step, known: ModelSlot, no: RefusedError | None, parked: set[str]
    ) -> core_records.Record | None:
        now = self.now()
        match found:
            case Fetch() | Stage() if no:
                parked.add(known.model)
                return outcomes.blocked(known, no, now)
            case Fetch():
                return outcomes.fetched(known, now)
            case Stage():
                return outcomes.staged(known, now)
            case Trial():
                wish = self.state.orders[known.model]
                stays = mates(self.state, known.model) or is_shadow(wish)
                passed = outcomes.tested if stays else outcomes.passed
                return outcomes.failed(known, no, now) if no else passed(known, "", now)
            case Switch():
                self.check_number(known)
                self.check_ties(known)
                assert not is_shadow(self.state.orders[known.model])
                if no:
                    return outcomes.not_taken(known, no, now)
                return outcomes.told(known, now, 3) if self.tells else outcomes.switched(known, now)
            case Confirm(last=last):
                self.asked[known.model] = self.uptime
                if no or last:
                    silent = no or RefusedError(Reason.APP_SILENT, "not a word")
                    return outcomes.not_taken(known, silent, now)
                return outcomes.switched(known, now) if self.uptime % 1 > 0.3 else None
            case Probe(last=last):
                self.probed[known.model] = self.uptime
                wish = self.state.orders.get(known.model)
                return outcomes.probed(known, no, now, RULES, last=last, order=wish)
            case ClearAway(model=model):
                return core_records.cleared(model, at=now.wall)
            case Restore(ways=ways):
                if no or not ways:
                    return outcomes.nowhere_to_go(known, now)
                return outcomes.restored(known, ways[0], "", now)
        return None

    def check_number(self, known: ModelSlot) -> None:
        """A number never comes back with other bytes, and none is below the one before."""
        assert known.candidate
        number = known.number_of(known.candidate)
        assert number == max(n.number for n in known.numbers)
        mine = {n for m, n in self.numbers if m == known.model}
        assert number >= max(mine, default=1)
        assert self.numbers.setdefault((known.model, number), known.candidate) == known.candidate

    def check_ties(self, known: ModelSlot) -> None:
        """No tied model begins to switch before the others may follow at once."""
        for name in mates(self.state, known.model):
            other, wish = self.state.slot(name), self.state.orders[name]
            there = other.current == wish.wanted
            assert there or other.state is S.SWITCHING or is_tested(other), other


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTS, max_size=8), st.lists(NO, max_size=30), st.booleans(), st.booleans())
def test_every_history_comes_to_rest_and_keeps_its_promises(
    acts: list[tuple[str, Any]], luck: list[Reason | None], tells: bool, tied: bool
) -> None:
    world = World(luck, tells=tells, tied=tied)
    for kind, what in acts:
        world.act(kind, what)
        world.settle()
    memory = world.state.memory
    for known in world.state.models.values():
        assert known.state not in (S.SWITCHING, S.ROLLING_BACK, S.PROBATION)
        wish = world.state.orders.get(known.model)
        if known.state in (S.STAGED, S.TESTING):
            assert waits_for(world.state, known, ()) or kept_out(world.state, known)
        if known.state is S.SHADOWING:
            assert is_shadow(wish)
            assert wish
            assert (known.candidate, known.current != wish.wanted) == (wish.wanted, True)
            assert memory.forbids(known.model, wish.sha256, wish.counter) is None
        unfit = known.current and memory.forbids(
            known.model, known.current.sha256, known.current.counter
        )
        if unfit and not known.damaged:
            assert known.state in (S.FAILED, S.FETCHING, S.VERIFYING, S.STAGED, S.TESTING)
            assert not ways_back(known, memory)
    # and what was folded is what is read back
    assert core_records.apply(DeviceState(), core_records.snapshot(world.state)) == world.state
