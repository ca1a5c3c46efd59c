"""How many devices say the same, so that a few that lie turn no gate.

Evidence over ranks is quick, because few devices far off suffice. That is what a few lying ones can
be. So a gate stops on evidence only if enough devices show what it says, and passes only if not so
many are worse that the rest may just as well hide something. Both are conditions on top of the
evidence: they make a false stop rarer still, never more frequent.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pilotwave_server.rollouts.gates import mixture

# If a quarter of the old arm says that it does better than it does, the median of the others lies
# at five eighths of all: no new device counts as worse that is not worse than that.
_MIDDLE = 0.625
_MOST = (2, 3)  # so many of the new devices are worse than that by more than is allowed
_FAR = 0.95  # or more than so many of them are worse than nearly all old ones
_FAR_OFF = (2, 5)
_FAR_FROM = 16  # devices from which the second one counts
_DOUBT = math.log(5)  # so many worse than the median come by chance in at most 1 of 5 rollouts


def enough(worse: int, far: int, of: int) -> bool:
    """Say whether a FAIL has enough of the devices that are heard: those that are worse than is
    allowed, or those that are so beyond doubt."""
    most = worse > 0 and _MOST[1] * worse >= _MOST[0] * of
    return most or (of >= _FAR_FROM and _FAR_OFF[1] * far > _FAR_OFF[0] * of)


@dataclass(frozen=True)
class Agreement:
    """One figure for each device of an arm, sorted, the greater the worse; the trend lies at 0."""

    new: Sequence[float]
    old: Sequence[float]
    allowed: float

    @property
    def worse(self) -> int:
        """How many new devices are worse by more than is allowed, even if a quarter lies."""
        return self._worse(0)

    @property
    def stops(self) -> bool:
        """Whether enough devices are worse for a FAIL."""
        return enough(self._worse(0), self._far(0), len(self.new))

    @property
    def doubts(self) -> bool:
        """Whether too many devices are worse for a PASS."""
        return self._doubted(self._above(self.allowed))

    @property
    def to_stop(self) -> int:
        """At least so many devices would have to lie, in either arm, to have a FAIL."""
        return max(1, min(self._ways_to_stop()))

    @property
    def to_pass(self) -> int:
        """At least so many devices lie, if it is a PASS only by their lies; where `stops` holds, at
        least so many would have to lie to undo it."""
        worse, far = self._worse(0), self._far(0)
        if self.stops:
            lies = range(1, len(self.new) + 1)
            undone = (n for n in lies if not enough(worse - n, far - n, len(self.new)))
            return next(undone, len(self.new))
        over = self._above(self.allowed)
        missing = range(len(self.new) - over + 1)
        return next((n for n in missing if self._doubted(over + n)), len(self.new) + 1)

    def _doubted(self, worse: int) -> bool:
        return mixture.log_evidence(worse, len(self.new), 0.5) >= _DOUBT

    def _ways_to_stop(self) -> Iterator[int]:
        """How many devices it takes, by how many of them are in the old arm."""
        for lies in range(len(self.old) // 2 + 1):
            worse, far = self._worse(lies), self._far(lies)
            more = range(len(self.new) + 1)
            enough_of = (n for n in more if enough(worse + n, far + n, len(self.new)))
            yield lies + next(enough_of, len(more))
            if lies > len(self.new):
                return

    def _worse(self, lies: int) -> int:
        """Count the new devices that are worse, if so many old ones say they do better."""
        return self._above(self.allowed + self._old_at(_MIDDLE, lies))

    def _far(self, lies: int) -> int:
        return self._above(self.allowed + max(0.0, self._old_at(_FAR, lies)))

    def _old_at(self, share: float, lies: int) -> float:
        if not self.old:
            return 0.0
        place = min(int(share * len(self.old)), len(self.old) - 1)
        return self.old[max(0, place - lies)]

    def _above(self, level: float) -> int:
        return len(self.new) - bisect_right(self.new, level)
