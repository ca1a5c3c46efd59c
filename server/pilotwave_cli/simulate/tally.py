"""What the simulated fleet has done so far."""

from __future__ import annotations

from collections import Counter, deque


class Tally:
    """Counts, and the last times that answers took."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.last_words = ""
        self._times: dict[str, deque[float]] = {}

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def said(self, words: str) -> None:
        """Keep the newest trouble, to be shown."""
        self.last_words = words

    def took(self, path: str, seconds: float) -> None:
        self._times.setdefault(path, deque(maxlen=20_000)).append(seconds)

    def quantile_ms(self, path: str, q: float) -> float | None:
        """A quantile of the last answers of a path, in ms."""
        times = sorted(self._times.get(path, ()))
        return round(times[min(len(times) - 1, int(len(times) * q))] * 1000, 1) if times else None
