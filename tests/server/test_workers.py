"""Background work goes on whatever happens to one turn of it, and ends when it is told to."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from pilotwave_server.workers import Periodic


class Work:
    """Counts its turns and lets a test wait for one; the first `failing` turns fail."""

    def __init__(self, *, failing: int = 0) -> None:
        self.turns = 0
        self.failing = failing
        self.done = threading.Semaphore(0)

    def __call__(self) -> None:
        self.turns += 1
        self.done.release()
        if self.turns <= self.failing:
            raise RuntimeError("this turn fails")

    def wait(self) -> None:
        assert self.done.acquire(timeout=60)


def test_work_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    worker = Periodic("test", work, interval_s=0.01)
    worker.start()
    for _ in range(3):
        work.wait()
    worker.stop()
    turns = work.turns
    assert turns >= 3
    worker.stop()
    assert work.turns == turns


def test_a_turn_that_fails_is_logged_and_the_next_one_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work(failing=1)
    worker = Periodic("reseal", work, interval_s=0.01)
    worker.start()
    work.wait()
    work.wait()
    worker.stop()
    assert worker.failures == 1
    assert "reseal failed" in caplog.text


def test_wake_calls_early_and_stop_does_not_wait_for_the_interval() -> None:
    work = Work()
    worker = Periodic("test", work, interval_s=3600)
    worker.start()
    worker.wake()
    work.wait()
    worker.stop()
    assert work.turns == 1


def turns_begin(work_s: float, *, computing: bool) -> float:
    """How long after a turn of `work_s` seconds the next one begins, though it is woken at once."""
    began: list[float] = []
    ended: list[float] = []
    twice = threading.Event()

    def work() -> None:
        began.append(time.monotonic())
        if len(began) == 2:
            twice.set()
            return
        until = time.thread_time() + work_s
        while computing and time.thread_time() < until:
            pass
        if not computing:
            time.sleep(work_s)
        worker.wake()
        ended.append(time.monotonic())

    worker = Periodic("test", work, interval_s=3600, rest=40, rest_most_s=0.5)
    worker.start()
    worker.wake()
    assert twice.wait(60)
    worker.stop()
    return began[1] - ended[0]


def test_who_waited_for_a_lock_does_not_rest_for_a_multiple_of_that() -> None:
    assert 0.4 < turns_begin(0.5, computing=False) < 10


def test_who_has_computed_rests_so_long_that_it_takes_a_small_share() -> None:
    assert turns_begin(0.05, computing=True) >= 1.9


def test_what_is_due_at_the_end_is_done_at_the_end() -> None:
    work = Work()
    worker = Periodic("test", work, interval_s=3600, at_stop=True)
    worker.start()
    worker.stop()
    assert work.turns == 1


def test_a_worker_may_start_again() -> None:
    work = Work()
    worker = Periodic("test", work, interval_s=0.01)
    for _ in range(2):
        worker.start()
        work.wait()
        worker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
@pytest.mark.parametrize("can_wait", [True, False])
def test_what_can_wait_steps_back_and_nothing_else_does(can_wait: bool) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found: list[int] = []
    told = threading.Event()

    def work() -> None:
        found.append(niceness())
        told.set()

    worker = Periodic("test", work, interval_s=0.01, can_wait=can_wait)
    worker.start()
    assert told.wait(10)
    worker.stop()
    assert (found[0] > niceness()) is can_wait
