"""So much at once and then so much per second, for each of very many names.

A token bucket, kept as one number a name: when its bucket is full again (as GCRA does, ITU-T
I.371). Names whose bucket is full are forgotten. Used on one thread.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Buckets(Generic[K]):
    """Buckets of `burst` units that fill by `per_second`; at most `most` names are kept.

    `now` is in seconds of any clock that never goes back.
    """

    def __init__(self, *, burst: float, per_second: float, most: int = 100_000) -> None:
        self._burst = burst
        self._per_second = per_second
        self._most = most
        self._full_at: dict[K, float] = {}

    def __bool__(self) -> bool:
        """Whether any bucket may be less than full."""
        return bool(self._full_at)

    def left(self, name: K, now: float) -> float:
        """How many units there are; below 0 after `charge` took more."""
        missing = max(self._full_at.get(name, now) - now, 0.0) * self._per_second
        return self._burst - missing

    def wait_s(self, name: K, now: float, amount: float = 1.0) -> float:
        """In how many seconds there will be so many units; 0.0: there are."""
        return max(amount - self.left(name, now), 0.0) / self._per_second

    def take(self, name: K, now: float, amount: float = 1.0) -> float:
        """Take units if there are so many. Returns `wait_s`: 0.0 says that they were taken."""
        wait = self.wait_s(name, now, amount)
        if not wait:
            self.charge(name, now, amount)
        return wait

    def charge(self, name: K, now: float, amount: float) -> None:
        """Take units whether they are there or not."""
        if amount <= 0:
            return
        if name not in self._full_at and len(self._full_at) >= self._most:
            self._forget(now)
        self._full_at[name] = max(self._full_at.get(name, now), now) + amount / self._per_second

    def refund(self, name: K, amount: float) -> None:
        """Give units back that were taken for nothing."""
        if name in self._full_at:
            self._full_at[name] -= amount / self._per_second

    def _forget(self, now: float) -> None:
        """Forget the full ones; if that is not enough, those that owe least."""
        owing = sorted(((at, name) for name, at in self._full_at.items() if at > now), key=_first)
        self._full_at = {name: at for at, name in owing[-self._most // 2 :]}


def _first(pair: tuple[float, object]) -> float:
    return pair[0]
