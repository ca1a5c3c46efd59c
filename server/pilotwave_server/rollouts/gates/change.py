"""How much worse each window is than what its device had before, by how the fleet does meanwhile.

A device's own past takes out that devices differ; what the old arm's windows changed by at the time
takes out what changed for all (the hour, the load, the season).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from pilotwave_server.rollouts.gates.data import Sample
from pilotwave_server.rollouts.gates.ranks import Unit

_RECENT = 51  # windows of the old arm that say how things go just now
_ENOUGH = 5  # fewer say nothing
_FAR = 1e9
_NOTHING = 0.01  # stands for the usual figure where that is 0: an error rate of 1 %


class Window(NamedTuple):
    """One window, as its relative change: 0.1 is 10 % worse, whichever direction is worse. `worse`
    is what is left of it once the trend is taken out."""

    device: int
    new: bool
    change: float
    worse: float


def windows(samples: Sequence[Sample], *, worse: str) -> tuple[list[Window], bool]:
    """Return the windows in the order they came, and whether they are changes of a device.

    Where less than half of the new arm's windows have a reference, none is used: the figures are
    taken as they are, relative to the usual one, and only chance makes the arms comparable.
    """
    new = [s for s in samples if s.new]
    changes = 2 * sum(s.reference is not None for s in new) > len(new)
    sign = -1.0 if worse == "lower" else 1.0
    if changes:
        known = [s for s in samples if s.reference is not None]
        usual = _usual([s.reference for s in known if s.reference is not None])
        found = [_change(s, s.reference or 0.0, usual, sign) for s in known]
    else:
        usual = _usual([s.value for s in samples])
        found = [_change(s, usual, usual, sign) for s in samples]
    return list(_without_trend(found)), changes


def _usual(figures: Sequence[float]) -> float:
    """Return the size of a usual figure, by which changes from about 0 are measured."""
    return median(abs(f) for f in figures) or _NOTHING if figures else _NOTHING


def _change(sample: Sample, reference: float, usual: float, sign: float) -> Window:
    # a device whose figure was far below the usual one changes by multiples of it for nothing
    scale = max(abs(reference), usual / 10)
    change = sign * (sample.value - reference) / scale
    held = min(max(change, -_FAR), _FAR)  # ranks stay as they are, and JSON has no infinity
    return Window(sample.device, sample.new, held, held)


def _without_trend(found: Sequence[Window]) -> Iterator[Window]:
    recent: deque[float] = deque()
    ordered: list[float] = []
    for window in found:
        trend = ordered[len(ordered) // 2] if len(ordered) >= _ENOUGH else 0.0
        yield window._replace(worse=window.change - trend)
        if not window.new:
            recent.append(window.change)
            insort(ordered, window.change)
            if len(recent) > _RECENT:
                del ordered[bisect_left(ordered, recent.popleft())]


def units(found: Sequence[Window], *, size: int, allowed: float) -> Iterator[Unit]:
    """Yield one unit for each device and arm: the median of its first `size` windows, when the last
    of them is there. A new one is taken for better by `allowed`."""
    sizes: dict[tuple[int, bool], list[float]] = defaultdict(list)
    for window in found:
        taken = sizes[window.device, window.new]
        taken.append(window.worse)
        if len(taken) == size:
            yield Unit(window.new, median(taken) - (allowed if window.new else 0.0))
