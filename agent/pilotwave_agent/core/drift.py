"""Decide when inputs have drifted: evidence that a share is above its bound, looked at after each
window for as long as the device runs. Pure.

For each worse share a likelihood ratio is kept that begins anew whenever it has fallen below 1, so
that months of quiet inputs hide nothing. Their average is an e-detector (Shin, Ramdas and Rinaldo,
"E-detectors: a nonparametric framework for sequential change detection", 2024): as long as the
share is at most the bound, on average at least `WINDOWS` windows pass between two false alarms.
Where the share is the reference's own, far below the bound, bench/drift.py has seen none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pilotwave_protocol.shares import bet

WINDOWS = 100_000
_LEVEL = math.log(WINDOWS)
_ODDS = (1.5, 2.5, 5.0)  # of the worse shares, times the bound's


@dataclass(frozen=True)
class Evidence:
    """What speaks for drift: the logarithm of each ratio; and, since all of them began anew, how
    many inputs were seen and how many of them counted."""

    sums: tuple[float, ...] = (0.0,) * len(_ODDS)
    counted: int = 0
    seen: int = 0

    def after(self, counted: int, seen: int, bound: float) -> Evidence:
        """Return the evidence after a window: `counted` of `seen`, against at most `bound`."""
        kept = [max(known, 0.0) for known in self.sums]
        bets = [bet(bound, odds) for odds in _ODDS]
        sums = tuple(
            known + counted * yes + (seen - counted) * no
            for known, (yes, no) in zip(kept, bets, strict=True)
        )
        before = self if any(kept) else Evidence()
        return Evidence(sums, before.counted + counted, before.seen + seen)

    @property
    def is_drift(self) -> bool:
        """Say whether it is enough."""
        top = max(self.sums)
        whole = sum(math.exp(known - top) for known in self.sums)
        return top + math.log(whole / len(self.sums)) >= _LEVEL
