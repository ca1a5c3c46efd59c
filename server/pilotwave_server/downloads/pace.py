"""Hold bytes to a rate, whoever shares it: arithmetic over a clock that is handed in.

It is a leaky bucket kept as one number, the moment at which the rate is used up (the "virtual
scheduling" of ITU-T I.371). What was not used is lost but for a twentieth of a second.
"""

from __future__ import annotations

BURST_S = 0.05
LEAST_PIECE = 1024


class ByteRate:
    """`rate` is in bytes per second and may be changed at any time."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._used_up = 0.0

    def take(self, count: int, now: float) -> float:
        """Take so many bytes and return in how many seconds they may go."""
        begin = max(self._used_up, now - BURST_S)
        self._used_up = begin + count / self.rate
        return max(begin - now, 0.0)


def piece_of(rate: float, most: int) -> int:
    """Return how many bytes to send at a time, so that a rate is held smoothly."""
    return int(min(max(rate * BURST_S, LEAST_PIECE), most))
