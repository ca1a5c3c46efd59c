"""Sum up `ridge` updates, and leave out what makes the result worse on the publisher's examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilotwave_protocol.learning.statistics import Classes, Floats, Statistics, scores, with_ones

_MOST_NUMBERS = 1 << 19
"""In each array of what is tried at a time: 4 MB."""
GAIN = 0.02
"""By how much the squared error of one of the publisher's examples must be less without a device:
what a device of honest examples of its own kind costs at most (docs/learning.md)."""


@dataclass(frozen=True)
class Validation:
    """The publisher's own examples: embeddings [n, features] and classes [n]."""

    embeddings: Floats
    classes: Classes

    def share_right(self, head: Floats) -> float:
        """Return the share of them that a head gets right."""
        return float((scores(head, self.embeddings).argmax(axis=1) == self.classes).mean())

    def sums(self, classes: int) -> Statistics:
        """Return their sums."""
        rows = with_ones(self.embeddings)
        return Statistics(rows.T @ rows, rows.T @ np.eye(classes)[self.classes])

    def halves(self) -> list[Validation]:
        """Return every other example, and those between them."""
        return [Validation(self.embeddings[turn::2], self.classes[turn::2]) for turn in (0, 1)]


class Judge:
    """Judges sums by heads that have the publisher's examples among theirs: each half of these by a
    head that has the other half."""

    def __init__(self, own: Validation, classes: int, penalty: float) -> None:
        self._halves = own.halves()
        self._others = [half.sums(classes) for half in reversed(self._halves)]
        self._penalty = penalty

    def head(self, sums: Statistics) -> Floats:
        """Return the head of these sums and of all of the publisher's examples."""
        first, second = self._others
        return (sums + first + second).head(self._penalty)

    def judged(self, grams: Floats, crosses: Floats) -> tuple[Floats, Floats]:
        """Judge sums [k, d, d] and [k, d, classes], each by itself: return the squared error of an
        example [k], and the share of examples that are right [k]."""
        found = [self._half(place, grams, crosses) for place in (0, 1)]
        errors, right = (np.hstack(parts).mean(axis=1) for parts in zip(*found, strict=True))
        return errors, right

    def _half(self, place: int, grams: Floats, crosses: Floats) -> tuple[Floats, Floats]:
        half, own = self._halves[place], self._others[place]
        whole = grams + own.gram + self._penalty * np.eye(len(own.gram))
        given = with_ones(half.embeddings) @ np.linalg.solve(whole, crosses + own.cross)
        wanted = np.eye(crosses.shape[2])[half.classes]
        return ((given - wanted) ** 2).sum(axis=2), given.argmax(axis=2) == half.classes


@dataclass(frozen=True)
class LeftOut:
    """A device that was left out, by its place, and what share of examples more is right without it
    (where that is none, the scores are surer)."""

    place: int
    gain: float


@dataclass(frozen=True)
class Summed:
    """The head of those that were kept, and the share of the publisher's examples that is right:
    of each half by a head that has the other half; `right_with_all`, by the sum of all devices."""

    head: Floats
    left_out: tuple[LeftOut, ...] = ()
    right: float | None = None
    right_with_all: float | None = None


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
    bad devices hide behind each other. At most half of them go. The publisher's own examples count
    too, like those of one more device: what only a liar has seen is not lost with it.
    """
    kept = list(range(len(updates)))
    whole = total(updates)
    judge = Judge(validation, whole.cross.shape[1], penalty)
    error, right = (float(one[0]) for one in judge.judged(whole.gram[None], whole.cross[None]))
    plain, gone = validation.share_right(whole.head(penalty)), list[LeftOut]()
    while len(kept) > len(updates) // 2 + 1:
        errors, rights = _without_each(whole, updates, kept, judge, len(validation.classes))
        worst = int(np.argmin(errors))
        if error - errors[worst] < gain:
            break
        gone.append(LeftOut(kept[worst], float(rights[worst]) - right))
        error, right = float(errors[worst]), float(rights[worst])
        whole = whole - updates[kept.pop(worst)]
    return Summed(judge.head(whole), tuple(gone), right, plain)


def _without_each(
    whole: Statistics, updates: Sequence[Statistics], kept: Sequence[int], judge: Judge, rows: int
) -> tuple[Floats, Floats]:
    """What `judge` says without each of those kept, some heads at a time."""
    at_once = max(1, _MOST_NUMBERS // max(whole.gram.size, rows * whole.cross.shape[1]))
    found = []
    for start in range(0, len(kept), at_once):
        some = [updates[place] for place in kept[start : start + at_once]]
        grams = whole.gram - np.stack([u.gram for u in some])
        found.append(judge.judged(grams, whole.cross - np.stack([u.cross for u in some])))
    errors, rights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return errors, rights
