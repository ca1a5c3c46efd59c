"""How plain a password may be, and how it is kept."""

from __future__ import annotations

import threading

import pytest

from pilotwave_server.operators.passwords import (
    KNOWN,
    STRANGERS,
    Lane,
    TooManyLogins,
    WeakPassword,
    check_quality,
    hash_password,
    verify_password,
)


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaa", "my-name-is-ada", "x" * 300])
def test_a_password_that_is_too_plain_is_refused(password: str) -> None:
    with pytest.raises(WeakPassword):
        check_quality(password, name="ada")


def test_a_password_is_told_from_another_and_nobody_has_any() -> None:
    known = hash_password("correct horse battery")
    assert verify_password(known, "correct horse battery")
    assert not verify_password(known, "correct horse batterz")
    assert not verify_password(None, "nobody has this password")
    assert not verify_password("not a hash", "x")


def test_a_lane_runs_few_lets_few_wait_and_refuses_the_rest() -> None:
    lane = Lane(at_once=2, waiting=3)
    lock, stop = threading.Lock(), threading.Event()
    now = most = refused = 0

    def run() -> None:
        nonlocal now, most, refused
        try:
            with lane.turn():
                with lock:
                    now += 1
                    most = max(most, now)
                stop.wait(10)
                with lock:
                    now -= 1
        except TooManyLogins:
            with lock:
                refused += 1
                if refused == 15:
                    stop.set()

    threads = [threading.Thread(target=run) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, refused) == (2, 15)


def test_strangers_who_fill_their_lane_leave_the_other_free() -> None:
    places = STRANGERS._places  # what a crowd of strangers would hold
    held = 0
    while places.acquire(blocking=False):
        held += 1
    try:
        with pytest.raises(TooManyLogins) as caught:
            verify_password(None, "x")
        assert (caught.value.code, caught.value.status) == ("too_many_logins", 503)
        assert verify_password(None, "x", lane=KNOWN) is False
    finally:
        for _ in range(held):
            places.release()
    assert held == 10
