"""Evidence that a candidate is worse than allowed on more devices than chance explains, from what
each device sees of it beside the version in use: an e-process with one voice for each device.

A device's windows, in order, are bet on: each comes as a multiple `x` of what is allowed, whose
mean is at most 1 if the candidate keeps to the limit (a share of calls over the share that is
allowed; or 2 for a window beyond the limit and 0 for another, of which half may be beyond). Who
stakes a part s of the coins on each has the product of 1 - s + s x, which does not grow on average
(Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024). That is
so however the calls *within* a window hang together, as those of a camera's scene do.

A device's coins count up to `LOUDEST`, and one of 50 devices (`_ODD`) may be as loud as that for
reasons of its own. So a device's coins over `_MEAN` do not grow on average either, and neither does
what is won by staking a part of the gate's coins on each device: it exceeds 1/alpha with a chance
of at most alpha, whenever one looks (Ville's inequality), in whatever order devices speak, and
whenever each of them begins to. With these numbers two devices never stop a candidate, three do.

That few devices that lie turn no gate is `agreement.py`'s.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilotwave_server.rollouts.gates import mixture
from pilotwave_server.rollouts.gates.agreement import enough

LOUDEST = 20.0
BEYOND = 2.0  # a window beyond a limit that half of them may be beyond, as a multiple
_ODD = 0.02
_MEAN = 1 - _ODD + _ODD * LOUDEST
# what is staked on a window of a share, which may be rare, and on one that is beyond or is not
SHARES = (0.1, 0.4, 0.8)
HALVES = (0.5, 0.9)
_DEVICE_STAKES = (0.12, 0.4, 0.9)
_WORSE = 3.0  # coins from which on a device says that the candidate is worse
_ASIDE = 0.05  # of devices that say so of a good candidate, no more are expected
_DOUBT = math.log(5)  # bad luck goes so far in at most 1 of 5 rollouts
_MOST_NEEDED = 64  # devices that say the same stop at any alpha that a policy may ask for


def coins(metrics: Iterable[Sequence[float]], stakes: Sequence[float]) -> float:
    """Return a device's coins, as much as counts of them, after windows of these multiples (0 or
    more) of what is allowed. Of several metrics each is bet on with an equal part of the coins."""
    won = [_won(multiples, stakes) for multiples in metrics]
    return min(sum(won) / len(won), LOUDEST)


def _won(multiples: Sequence[float], stakes: Sequence[float]) -> float:
    logs = [sum(math.log1p(stake * (each - 1)) for each in multiples) for stake in stakes]
    return sum(math.exp(min(log, 100.0)) for log in logs) / len(logs)


@dataclass(frozen=True)
class Voices:
    """The coins of each device that is heard, sorted, and the log of what stops."""

    coins: Sequence[float]
    level: float

    @property
    def log_evidence(self) -> float:
        """The log of the e-value."""
        logs = [self._won(stake) for stake in _DEVICE_STAKES]
        top = max(logs)
        return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))

    def _won(self, stake: float) -> float:
        return sum(math.log1p(stake * (each / _MEAN - 1)) for each in self.coins)

    @property
    def worse(self) -> int:
        """How many devices say that the candidate is worse."""
        return len(self.coins) - bisect_left(self.coins, _WORSE)

    @property
    def agree(self) -> bool:
        """Whether so many devices say so as a FAIL needs, besides the evidence."""
        return enough(self.worse, self.worse, len(self.coins))

    @property
    def stops(self) -> bool:
        return self.log_evidence >= self.level and self.agree

    @property
    def doubts(self) -> bool:
        """Whether too much, or too many devices, speak against the candidate for a PASS."""
        aside = mixture.log_evidence(self.worse, len(self.coins), _ASIDE)
        return max(self.log_evidence, aside) >= _DOUBT

    @property
    def to_stop(self) -> int:
        """At least so many devices would have to lie to have a FAIL."""
        lies = range(len(self.coins) + _MOST_NEEDED)
        return bisect_left(lies, True, key=lambda count: self._with_loud(count).stops)

    @property
    def to_pass(self) -> int:
        """At least so many devices lie, if it is a PASS only by their lies; where it is a FAIL, at
        least so many would have to lie to undo it."""
        if self.stops:
            lies = range(len(self.coins))
            return bisect_left(lies, True, key=lambda count: not self._with_quiet(count).stops)
        lies = range(len(self.coins) + 1)
        return bisect_left(lies, True, key=lambda count: self._with_loud(count).doubts)

    def _with_loud(self, count: int) -> Voices:
        return Voices((*self.coins[count:], *[LOUDEST] * count), self.level)

    def _with_quiet(self, count: int) -> Voices:
        left = len(self.coins) - count
        return Voices((*[0.0] * count, *self.coins[:left]), self.level)
