"""When the agent does what: one wake-up for what is due together, no storm after a long sleep."""

from __future__ import annotations

import random

from pilotwave_agent.schedule import NEVER, PROFILES, Schedule


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
