"""Sum up `ridge` updates, and leave out what makes the result worse on the publisher's examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilotwave_protocol.learning.statistics import Classes, Floats, Statistics, scores, with_ones

_MOST_NUMBERS = 1 << 19
"""In each array of what is tried at a time: 4 MB."""
GAIN = 0.02
"""The least share of the publisher's examples that must come right without a device, more than go
wrong: what a device of honest examples of its own kind costs at most (docs/learning.md)."""


@dataclass(frozen=True)
class Validation:
    """The publisher's own examples: embeddings [n, features] and classes [n]."""

    embeddings: Floats
    classes: Classes

    def share_right(self, head: Floats) -> float:
        """Return the share of them that a head gets right."""
        return float((scores(head, self.embeddings).argmax(axis=1) == self.classes).mean())


@dataclass(frozen=True)
class LeftOut:
    """A device that was left out, by its place, and what it cost."""

    place: int
    gain: float


@dataclass(frozen=True)
class Summed:
    """The head of those that were kept."""

    head: Floats
    left_out: tuple[LeftOut, ...] = ()


class Packed(Sequence[Statistics]):
    """Updates as they came, each read when it is looked at: many take less memory so."""

    def __init__(self, raw: Sequence[bytes], *, features: int, classes: int) -> None:
        self._raw, self._features, self._classes = raw, features, classes

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, place: int) -> Statistics:  # type: ignore[override]  # one at a time
        raw = self._raw[place]
        return Statistics.from_bytes(raw, features=self._features, classes=self._classes)


def total(updates: Sequence[Statistics]) -> Statistics:
    """The sums over all devices, of which one at a time is read."""
    found = Statistics.zero(updates[0].gram.shape[0] - 1, updates[0].cross.shape[1])
    for update in updates:
        np.add(found.gram, update.gram, out=found.gram)
        np.add(found.cross, update.cross, out=found.cross)
    return found


def sum_all(updates: Sequence[Statistics], penalty: float) -> Summed:
    """The head of all examples of all devices. A sum has no defence."""
    return Summed(total(updates).head(penalty))


def leave_one_out(
    updates: Sequence[Statistics], penalty: float, validation: Validation, gain: float = GAIN
) -> Summed:
    """Leave devices out, the worst first, while the head without the worst one is better by `gain`.

    "Reject on negative impact" (Nelson et al., "Exploiting Machine Learning to Subvert Your Spam
    Filter", LEET 2008, and "The security of machine learning", 2010), taken again and again, since
    bad devices hide behind each other. At most half of them go.
    """
    kept = list(range(len(updates)))
    whole = total(updates)
    gone: list[LeftOut] = []
    while len(kept) > len(updates) // 2 + 1:
        here = validation.share_right(whole.head(penalty))
        gains = _without_each(whole, updates, kept, penalty, validation) - here
        worst = int(np.argmax(gains))
        if gains[worst] < gain:
            break
        gone.append(LeftOut(kept[worst], float(gains[worst])))
        whole = whole - updates[kept.pop(worst)]
    return Summed(whole.head(penalty), tuple(gone))


def _without_each(
    whole: Statistics,
    updates: Sequence[Statistics],
    kept: Sequence[int],
    penalty: float,
    validation: Validation,
) -> Floats:
    """The share right without each of those kept, some heads at a time."""
    rows, found = with_ones(validation.embeddings), []
    ridge = whole.gram + penalty * np.eye(len(whole.gram))
    at_once = max(1, _MOST_NUMBERS // max(ridge.size, len(rows) * whole.cross.shape[1]))
    for start in range(0, len(kept), at_once):
        some = [updates[place] for place in kept[start : start + at_once]]
        grams = ridge - np.stack([u.gram for u in some])
        heads = np.linalg.solve(grams, whole.cross - np.stack([u.cross for u in some]))
        right = (rows @ heads).argmax(axis=2) == validation.classes
        found.append(right.mean(axis=1))
    return np.concatenate(found)
