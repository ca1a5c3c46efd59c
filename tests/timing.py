"""Say whether work takes linear time: four times the input, at most nine times the time.

Quadratic work takes sixteen times. What no longer fits into a processor's cache costs up to twice
as much a byte.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
MORE = 4
AT_MOST = 9.0
TRIES = 8
BEST_OF = 3
# below this the clock and the interpreter's own work decide, not the length of the input
MEASURABLE_S = 0.01


def best_time(work: Callable[[T], object], given: T) -> float:
    """The least CPU time of some runs; that `work` raises is as good an end as any.

    Without the collector of cycles: it walks all that the tests ever imported, at some sizes only.
    """
    taken = []
    was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(BEST_OF):
            began = time.thread_time()
            with contextlib.suppress(Exception):
                work(given)
            taken.append(time.thread_time() - began)
    finally:
        if was_on:
            gc.enable()
    return min(taken)


def assert_linear(
    work: Callable[[T], object], make: Callable[[int], T], *, size: int, largest: int = 1 << 20
) -> None:
    """Compare `make(size)` and `make(MORE * size)`, at growing sizes until the time is measurable.

    A machine that is busy makes single figures worse, never better: one good try is enough.
    """
    while True:
        for _ in range(TRIES):
            once, more = best_time(work, make(size)), best_time(work, make(MORE * size))
            if more <= max(AT_MOST * once, MEASURABLE_S):
                break
        else:
            raise AssertionError(
                f"expected at most {AT_MOST} times the time for {MORE} times the input; "
                f"{size} took {once * 1000:.1f} ms, {MORE * size} took {more * 1000:.1f} ms"
            )
        if more > MEASURABLE_S or 2 * MORE * size > largest:
            return
        size *= 2
