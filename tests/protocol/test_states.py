"""The table of states: each pair is either in it or not, and it has no dead end."""

from __future__ import annotations

import itertools

from pilotwave_protocol.states import TRANSITIONS, ModelState, Reason, may_follow


def test_the_table_names_every_state_and_may_follow_reads_it() -> None:
    assert set(TRANSITIONS) == set(ModelState)
    for before, after in itertools.product(ModelState, repeat=2):
        assert may_follow(before, after) == (after in TRANSITIONS[before])


def test_from_every_state_a_device_can_come_to_healthy() -> None:
    for start in ModelState:
        reached, edge = {start}, {start}
        while edge:
            edge = {after for state in edge for after in TRANSITIONS[state]} - reached
            reached |= edge
        assert ModelState.HEALTHY in reached, start


def test_nothing_reaches_probation_without_the_switch() -> None:
    before = {s for s in ModelState if ModelState.PROBATION in TRANSITIONS[s]}
    assert before == {ModelState.SWITCHING}
    assert {s for s in ModelState if ModelState.SWITCHING in TRANSITIONS[s]} == {ModelState.TESTING}


def test_nothing_is_in_shadow_that_was_not_tested() -> None:
    assert {s for s in ModelState if ModelState.SHADOWING in TRANSITIONS[s]} == {ModelState.TESTING}


def test_words_print_as_their_values() -> None:
    assert f"{Reason.WRONG_KEY}" == "wrong_key"
    assert str(ModelState.ROLLING_BACK) == "rolling_back"
