"""Say whether work takes linear time: double the input, at most 2.5 times the time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
AT_MOST = 2.5
TRIES = 8
BEST_OF = 3
# below this the clock and the interpreter's own work decide, not the length of the input
MEASURABLE_S = 0.01


def best_time(work: Callable[[T], object], given: T) -> float:
    """The least CPU time of some runs; that `work` raises is as good an end as any."""
    taken = []
    for _ in range(BEST_OF):
        began = time.thread_time()
        with contextlib.suppress(Exception):
            work(given)
        taken.append(time.thread_time() - began)
    return min(taken)


def assert_linear(
    work: Callable[[T], object], make: Callable[[int], T], *, size: int, largest: int = 1 << 20
) -> None:
    """Compare `make(size)` and `make(2 * size)`, at growing sizes until the time is measurable.

    A machine that is busy makes single figures worse, never better: one good try is enough.
    """
    while True:
        for _ in range(TRIES):
            once, twice = best_time(work, make(size)), best_time(work, make(2 * size))
            if twice <= max(AT_MOST * once, MEASURABLE_S):
                break
        else:
            raise AssertionError(
                f"expected at most {AT_MOST} times the time for twice the input; "
                f"{size} took {once * 1000:.1f} ms, {2 * size} took {twice * 1000:.1f} ms"
            )
        if twice > MEASURABLE_S or 4 * size > largest:
            return
        size *= 2
