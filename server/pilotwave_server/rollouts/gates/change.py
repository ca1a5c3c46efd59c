"""How much worse each window is than what its device had before, by how the fleet does meanwhile.

A device's own past takes out that devices differ; what the old arm's devices changed by at the time
takes out what changed for all (`trend.py`). Whatever is chosen by how the fleet does (the trend,
the usual figure, whether there are references) is chosen by devices, each with one voice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from pilotwave_server.rollouts.gates.data import Sample
from pilotwave_server.rollouts.gates.ranks import Unit
from pilotwave_server.rollouts.gates.trend import Trend

MOST_OF_ONE = 24  # windows of a device: the first 12, and twelve doublings
_FAR = 1e9
_GREATEST = 1e300  # the mean of two greater ones may be infinite
_NOTHING = 0.01  # stands for the usual figure where that is 0: an error rate of 1 %


class ChangeWindow(NamedTuple):
    """One window, as its relative change: 0.1 is 10 % worse, whichever direction is worse. `worse`
    is what is left of it once the trend is taken out."""

    device: int
    new: bool
    change: float
    worse: float


def windows(samples: Sequence[Sample], *, worse: str) -> tuple[list[ChangeWindow], bool]:
    """Return the windows in the order they came, and whether they are changes of a device.

    Where less than half of the new arm's devices have a reference, none is used: the figures are
    taken as they are, relative to the usual one, and only chance makes the arms comparable.
    """
    first = _firsts(samples)
    new = [s for s in first if s.new]
    changes = 2 * sum(s.reference is not None for s in new) > len(new)
    sign = -1.0 if worse == "lower" else 1.0
    if changes:
        known = [s for s in samples if s.reference is not None]
        usual = _usual([s.reference for s in _firsts(known) if s.reference is not None])
        found = [(s, _change(s, s.reference or 0.0, usual, sign)) for s in known]
    else:
        usual = _usual([s.value for s in first])
        found = [(s, _change(s, usual, usual, sign)) for s in samples]
    return list(_without_trend(found)), changes


def _firsts(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of each device and arm."""
    found: dict[tuple[int, bool], Sample] = {}
    for sample in samples:
        found.setdefault((sample.device, sample.new), sample)
    return list(found.values())


def _usual(figures: Sequence[float]) -> float:
    """Return the size of a usual figure, by which changes from about 0 are measured."""
    found = median(abs(f) for f in figures) if figures else 0.0
    return min(found, _GREATEST) or _NOTHING


def _change(sample: Sample, reference: float, usual: float, sign: float) -> float:
    # a device whose figure was far below the usual one changes by multiples of it for nothing
    scale = max(abs(reference), usual / 10)
    change = sign * (sample.value - reference) / scale
    return min(max(change, -_FAR), _FAR)  # ranks stay as they are, and JSON has no infinity


def _without_trend(found: Sequence[tuple[Sample, float]]) -> Iterator[ChangeWindow]:
    """Of one device's new version `MOST_OF_ONE` windows are looked at, whatever it sends."""
    trend, taken = Trend(), defaultdict[int, int](int)
    for sample, change in found:
        worse = change - trend.at(sample.at)
        if not sample.new:
            trend.add(sample.device, change, sample.at, sample.seconds)
        else:
            taken[sample.device] += 1
        if taken[sample.device] <= MOST_OF_ONE or not sample.new:
            yield ChangeWindow(sample.device, sample.new, change, worse)


def units(found: Sequence[ChangeWindow], *, size: int, allowed: float) -> Iterator[Unit]:
    """Yield one unit for each device and arm: the median of its first `size` windows, when the last
    of them is there. A new one is taken for better by `allowed`."""
    sizes: dict[tuple[int, bool], list[float]] = defaultdict(list)
    for window in found:
        taken = sizes[window.device, window.new]
        taken.append(window.worse)
        if len(taken) == size:
            yield Unit(window.new, median(taken) - (allowed if window.new else 0.0))


def voices(found: Sequence[ChangeWindow], *, size: int) -> tuple[list[float], list[float]]:
    """Return one figure for each device of the new and of the old arm: the median of what is left
    of its first `size` windows, or of those there are."""
    sizes: dict[tuple[bool, int], list[float]] = defaultdict(list)
    for window in found:
        taken = sizes[window.new, window.device]
        if len(taken) < size:
            taken.append(window.worse)
    by_arm: dict[bool, list[float]] = {True: [], False: []}
    for (new, _), taken in sizes.items():
        by_arm[new].append(median(taken))
    return sorted(by_arm[True]), sorted(by_arm[False])
