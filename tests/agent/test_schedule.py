"""When the agent does what: one wake-up for what is due together, no storm after a long sleep."""

from __future__ import annotations

import random
from itertools import pairwise

from pilotwave_agent.core.schedule import NEVER, PROFILES, Schedule


def schedule(profile: str = "standard", **more: float) -> Schedule:
    made = Schedule(
        poll_s=60.0, check_in_s=900.0, chance=random.Random(1), profile=PROFILES[profile]
    )
    for key, value in more.items():
        setattr(made, key, value)
    return made


def test_what_is_due_soon_is_done_in_the_same_wake_up() -> None:
    made = schedule(next_poll=100.0, next_check_in=104.0)
    made.gather(100.0)
    assert (made.next_poll, made.next_check_in) == (100.0, 100.0)


def test_what_is_due_later_waits() -> None:
    made = schedule(next_poll=100.0, next_check_in=120.0)
    made.gather(100.0)
    assert made.next_check_in == 120.0


def test_a_sleeping_agent_brings_nothing_forward() -> None:
    made = schedule(next_poll=100.0, next_check_in=101.0)
    made.gather(99.0)
    assert (made.next_poll, made.next_check_in) == (100.0, 101.0)


def test_a_server_that_asked_for_peace_is_not_asked_earlier() -> None:
    made = schedule(next_poll=100.0, next_check_in=105.0, not_before=105.0)
    made.gather(100.0)
    assert made.next_check_in == 105.0


def test_after_a_long_sleep_devices_come_once_and_in_turn() -> None:
    comings = set()
    for seed in range(50):
        made = schedule(next_poll=100.0, next_check_in=150.0)
        made.chance = random.Random(seed)
        made.gather(90_000.0)
        assert 90_000.0 <= made.next_poll == made.next_check_in <= 90_006.0
        comings.add(round(made.next_poll, 1))
        made.gather(made.next_poll)
        made.polled(made.next_poll)
        assert made.next_poll > 90_050.0  # nothing is made up for
    assert len(comings) > 20


def test_a_resumed_agent_without_a_token_does_not_poll_first() -> None:
    made = schedule(next_poll=NEVER, next_check_in=150.0)
    made.gather(90_000.0)
    assert made.next_poll == NEVER


def test_on_battery_polls_are_rarer_and_check_ins_ride_along() -> None:
    made = schedule("battery", next_poll=1000.0, next_check_in=1400.0)
    assert (made.poll_s, made.check_in_s) == (900.0, 900.0)
    made.gather(1000.0)
    assert made.next_check_in == 1000.0
    made.ask(poll_s=3600.0, check_in_s=60.0)
    assert (made.poll_s, made.check_in_s) == (3600.0, 900.0)


# --- being called (docs/push.md)


def polls_under(made: Schedule, calls: list[float], ends: float) -> list[float]:
    """Let time pass in tenths of seconds, with calls that are all for nothing; return the polls."""
    polls, now = [], 0.0
    while now < ends:
        while calls and calls[0] <= now:
            made.called(calls.pop(0), 0.0)
        if now >= made.next_poll:
            polls.append(now)
            made.polled(now, changed=False)
        now = round(now + 0.1, 1)
    return polls


def test_a_call_brings_the_poll_forward_within_the_time_that_was_asked() -> None:
    for within_s in (0.0, 5.0, 60.0):
        made = schedule(next_poll=600.0)
        made.called(100.0, within_s)
        assert 100.0 <= made.next_poll <= 100.0 + within_s


def test_a_call_never_puts_a_poll_off() -> None:
    made = schedule(next_poll=101.0)
    made.called(100.0, 500.0)
    assert made.next_poll <= 101.0


def test_calls_that_come_together_are_one() -> None:
    made = schedule(next_poll=600.0)
    for _ in range(50):
        made.called(100.0, 0.0)
    made.polled(100.0, changed=True)
    assert made.next_poll > 150.0


def test_a_forged_flood_costs_a_poll_a_minute_in_the_end() -> None:
    made = schedule(next_poll=50_000.0, stretch_s=50_000.0)
    polls = polls_under(made, [n / 10 for n in range(36_000)], 3600.0)
    gaps = [b - a for a, b in pairwise(polls)]
    assert min(gaps) >= 1.9
    assert len(polls) <= 70
    assert min(gaps[-30:]) >= 59.9


def test_a_call_for_nothing_is_looked_into_once_more() -> None:
    """The process that answers may not know yet what the one that called knows."""
    made = schedule(next_poll=50_000.0, stretch_s=50_000.0)
    polls = polls_under(made, [100.0], 1000.0)
    assert polls == [100.0, 102.0]


def test_a_call_that_was_for_something_makes_up_for_the_flood() -> None:
    made = schedule(next_poll=50_000.0, stretch_s=50_000.0)
    polls_under(made, [float(n) for n in range(500)], 500.0)
    made.called(600.0, 0.0)
    made.polled(made.next_poll, changed=True)
    made.called(900.0, 0.0)
    assert made.next_poll == 900.0
    made.polled(900.0, changed=True)
    made.called(900.1, 0.0)
    assert made.next_poll == 901.0


def test_a_server_that_is_in_trouble_is_not_polled_more_for_calls() -> None:
    made = schedule(next_poll=0.0)
    made.poll_failed(0.0, after_s=300.0)
    made.called(10.0, 0.0)
    assert made.next_poll >= 300.0


def test_a_call_without_a_token_changes_nothing() -> None:
    made = schedule(next_poll=NEVER, next_check_in=40.0)
    made.called(10.0, 0.0)
    assert (made.next_poll, made.next_check_in) == (NEVER, 40.0)


def test_polls_are_seldom_while_a_channel_lives_and_as_before_when_it_dies() -> None:
    made = schedule(next_poll=0.0)
    made.stretched(900.0)
    made.polled(0.0)
    assert 810.0 <= made.next_poll <= 990.0
    made.shrunk(100.0)
    assert 154.0 <= made.next_poll <= 166.0
    made.polled(160.0)
    assert 214.0 <= made.next_poll <= 226.0


def test_a_server_that_wants_fewer_polls_than_push_needs_gets_fewer() -> None:
    made = schedule(next_poll=0.0)
    made.ask(poll_s=3600.0, check_in_s=3600.0)
    made.stretched(900.0)
    made.polled(0.0)
    assert made.next_poll >= 3240.0
