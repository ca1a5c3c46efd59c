"""A quantile sketch that merges: DDSketch (Masson, Rim and Lee, "DDSketch: A Fast and
Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB 2019, arXiv:1908.10693).

Each value falls into the bin `ceil(log(|v|) / log(gamma))` of its sign, so that a quantile is
within `ACCURACY` of the true one, relatively, whatever the distribution, and merging adds counts.

Why not the library `ddsketch`: it has no bounded reader for what a stranger sends (only protobuf,
as an extra), keeps dense arrays whose length the values decide, carries no types, and brings `six`
to each device and application. The algorithm itself is the few lines below, over sparse bins. What
is added to the paper: values are held within 1e-9 and 1e12 in size, so no sketch can outgrow 2419
bins a sign, and `to_plain` writes at most `bins`, the smallest merged, as the paper's section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.fields import MAX_INT, Fields

ACCURACY = 0.01
MAX_BINS = 192
LARGEST = 1e12  # beyond it a value counts as this
SMALLEST = 1e-9  # below it, as 0
_LOG_GAMMA = math.log1p(2 * ACCURACY / (1 - ACCURACY))
_MIDDLE = math.log(2 / (1 + math.exp(_LOG_GAMMA)))
_LOW, _HIGH = math.ceil(math.log(SMALLEST) / _LOG_GAMMA), math.ceil(math.log(LARGEST) / _LOG_GAMMA)
_MAX_SUM = LARGEST * MAX_INT


class Sketch:
    """All values of one metric so far: their count, sum, least, greatest, and how they spread."""

    __slots__ = ("_above", "_below", "_zero", "count", "max", "min", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = -math.inf
        self._above: dict[int, int] = {}
        self._below: dict[int, int] = {}
        self._zero = 0

    def add(self, value: float, count: int = 1) -> None:
        """Count a value, `count` times. ValueError for NaN, an infinity or a count below 1."""
        if not math.isfinite(value) or count < 1:
            raise ValueError(f"expected a finite value and a count from 1; got {value}, {count}")
        value = min(max(value, -LARGEST), LARGEST)
        if abs(value) < SMALLEST:
            self._zero = _more(self._zero, count)
        else:
            bins = self._above if value > 0 else self._below
            key = math.ceil(math.log(abs(value)) / _LOG_GAMMA)
            bins[key] = _more(bins.get(key, 0), count)
        self._note(count, value * count, value, value)

    def merge(self, other: Sketch) -> None:
        """Count what `other` has counted."""
        for mine, theirs in ((self._above, other._above), (self._below, other._below)):
            for key, count in theirs.items():
                mine[key] = _more(mine.get(key, 0), count)
        self._zero = _more(self._zero, other._zero)
        self._note(other.count, other.sum, other.min, other.max)

    def _note(self, count: int, sum: float, low: float, high: float) -> None:
        self.count = _more(self.count, count)
        self.sum = min(max(self.sum + sum, -_MAX_SUM), _MAX_SUM)
        self.min, self.max = min(self.min, low), max(self.max, high)

    def scaled(self, most: int) -> Sketch:
        """Return a sketch of the same spread with about `most` values at most (each bin keeps one),
        so that no sketch outweighs others when they are merged."""
        found = Sketch()
        found.merge(self)
        if self.count <= most:
            return found
        share = most / self.count
        for bins in (found._above, found._below):
            for key, count in bins.items():
                bins[key] = max(1, round(count * share))
        found._zero = math.ceil(self._zero * share)
        found.count = sum(found._above.values()) + sum(found._below.values()) + found._zero
        found.sum = min(max(self.mean * found.count, -_MAX_SUM), _MAX_SUM)
        return found

    @property
    def mean(self) -> float:
        """The average of all values. ValueError if there is none."""
        if not self.count:
            raise ValueError("expected at least one value; the sketch is empty")
        return min(max(self.sum / self.count, self.min), self.max)

    def quantile(self, q: float) -> float:
        """Return the value below which a share `q` of all lies. ValueError if there is none."""
        if not 0 <= q <= 1 or not self.count:
            raise ValueError(f"expected q from 0 to 1 and at least one value; got {q}")
        rank = q * (self.count - 1)
        seen = 0
        for value, count in self._ascending():
            seen += count
            if seen > rank:
                return min(max(value, self.min), self.max)
        return self.max

    def _ascending(self) -> Iterator[tuple[float, int]]:
        for key in sorted(self._below, reverse=True):
            yield -_value(key), self._below[key]
        if self._zero:
            yield 0.0, self._zero
        for key in sorted(self._above):
            yield _value(key), self._above[key]

    def to_plain(self, bins: int = MAX_BINS) -> dict[str, Any]:
        """Return JSON values for `from_plain`, at most about 10 bytes a bin.

        `above` and `below` are the bins of each sign as key, count, key, count, keys rising.
        """
        above, below = _squeezed(self._above, self._below, bins)
        return {
            "above": [number for key in sorted(above) for number in (key, above[key])],
            "below": [number for key in sorted(below) for number in (key, below[key])],
            "zero": self._zero,
            "sum": self.sum,
            "min": self.min,
            "max": self.max,
        }

    @classmethod
    def from_plain(cls, plain: Any, path: str = "sketch", bins: int = MAX_BINS) -> Sketch:
        """Read what `to_plain` wrote, whoever sent it. BadMessage: not a sketch of 1 value or more,
        or one of more than `bins` bins."""
        f = Fields(plain, path, BadMessage)
        sketch = cls()
        sketch._above = _read_bins(f, "above", bins)
        sketch._below = _read_bins(f, "below", bins - len(sketch._above))
        sketch._zero = f.integer("zero")
        counts = (*sketch._above.values(), *sketch._below.values(), sketch._zero)
        sketch.count = min(sum(counts), MAX_INT)
        sketch.sum = f.number("sum", low=-_MAX_SUM, high=_MAX_SUM)
        sketch.min = f.number("min", low=-LARGEST, high=LARGEST)
        sketch.max = f.number("max", low=sketch.min, high=LARGEST)
        f.done()
        if not sketch.count:
            raise BadMessage(f"{path}: expected at least one value; got none")
        return sketch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<Sketch of {self.count} values from {self.min} to {self.max}>"


def _more(before: int, count: int) -> int:
    return min(before + count, MAX_INT)


def _value(key: int) -> float:
    """Return the middle of a bin: within ACCURACY of each value that falls into it."""
    return math.exp(key * _LOG_GAMMA + _MIDDLE)


def _squeezed(
    above: dict[int, int], below: dict[int, int], bins: int
) -> tuple[dict[int, int], dict[int, int]]:
    """Return both signs' bins in at most `bins`: the smallest in size go into the next."""
    if len(above) + len(below) <= bins:
        return above, below
    # two fewer, for each sign may need one at the edge
    edge = sorted([*above, *below])[2 - bins]
    return _raised(above, edge), _raised(below, edge)


def _raised(bins: dict[int, int], edge: int) -> dict[int, int]:
    raised: dict[int, int] = {}
    for key, count in bins.items():
        raised[max(key, edge)] = _more(raised.get(max(key, edge), 0), count)
    return raised


def _read_bins(f: Fields, name: str, most: int) -> dict[int, int]:
    flat = f.items(name, limit=2 * most)
    if len(flat) % 2 or not all(type(number) is int for number in flat):
        raise f.fail(name, "whole numbers in pairs: bin, count", flat)
    keys, counts = flat[::2], flat[1::2]
    if not all(_LOW <= key <= _HIGH for key in keys) or keys != sorted(set(keys)):
        raise f.fail(name, f"rising bins from {_LOW} to {_HIGH}", keys)
    if not all(1 <= count <= MAX_INT for count in counts):
        raise f.fail(name, f"counts from 1 to {MAX_INT}", counts)
    return dict(zip(keys, counts, strict=True))
