"""Decide of each call whether its input goes to the bigger model, within the signed budget.

It runs no model and opens no connection. A fixed threshold keeps its promise while inputs are like
those it was worked out from, and stops where the share is spent. A tracked one follows the inputs:
it keeps to the share and promises nothing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from enum import Enum, auto

from pilotwave_agent.live.capture import Budget
from pilotwave_protocol.escalate import Escalation

SAMPLED = 0.001
"""This share of the confident inputs is sent too: the only view of the small model that does not
depend on its own confidence."""
_SPAN = 1000
"""A share is spent when the calls before have used what it gives for so many."""
_STEP = 0.02


class Way(Enum):
    """What becomes of a call's input."""

    STAY = auto()  # confident: the small answer is the answer
    SAMPLE = auto()  # confident, and sent after the answer went out
    SEND = auto()  # hard: the bigger model is asked
    SPENT = auto()  # hard, and the share is spent


class Escalator:
    """One version's threshold and budget. `decide` and `pay` may be called from any thread."""

    def __init__(self, said: Escalation, chance: Callable[[], float] = random.random) -> None:
        self.threshold = float(said.threshold)
        self._share = float(said.budget.share)
        self._tracked = said.budget.tracked
        self._bytes_per_day = said.budget.bytes_per_day
        self._saved = self._most_saved = max(self._share * _SPAN, 1.0)
        self._bytes = Budget()
        self._chance = chance
        self._lock = threading.Lock()

    def decide(self, sure: float) -> Way:
        """Say what becomes of an input on which the small model is so `sure`."""
        with self._lock:
            hard = sure < self.threshold
            if self._tracked:
                moved = self.threshold + _STEP * (self._share - hard)
                self.threshold = min(max(moved, 0.0), 1.0)
                return self._way(hard)
            self._saved = min(self._saved + self._share, self._most_saved)
            if hard and self._saved < 1:
                return Way.SPENT
            self._saved -= hard
            return self._way(hard)

    def _way(self, hard: bool) -> Way:
        if hard:
            return Way.SEND
        return Way.SAMPLE if self._chance() < SAMPLED else Way.STAY

    def pay(self, size: int) -> bool:
        """Count so many bytes as sent; False where the day's budget has no room for them."""
        with self._lock:
            if not self._bytes.fits("", size, self._bytes_per_day):
                return False
            self._bytes.add("", size)
            return True
