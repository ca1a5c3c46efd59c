"""What `ridge` needs to know of labelled examples, and nothing else: sums that add up over devices.

X has a row for each example, its embedding and a one; Y has a one in the column of its class. The
sums X'X and X'Y of all devices give the very head that all their examples in one place would
(Hoerl and Kennard, Technometrics 1970, and that sums add up). On the wire they are little-endian
float32: the upper triangle of X'X row by row, then X'Y row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pilotwave_protocol.errors import BadMessage

Floats: TypeAlias = NDArray[np.float64]
Classes: TypeAlias = NDArray[np.int64]
_WIRE = np.dtype("<f4")


@dataclass(frozen=True)
class Statistics:
    """`gram` is X'X [d+1, d+1], `cross` X'Y [d+1, classes]; the last row of both is the ones'."""

    gram: Floats
    cross: Floats

    @classmethod
    def zero(cls, features: int, classes: int) -> Statistics:
        """The sums of no example."""
        d = features + 1
        return cls(np.zeros((d, d)), np.zeros((d, classes)))

    @property
    def examples(self) -> float:
        """How many examples were summed."""
        return float(self.gram[-1, -1])

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.gram + other.gram, self.cross + other.cross)

    def __sub__(self, other: Statistics) -> Statistics:
        return Statistics(self.gram - other.gram, self.cross - other.cross)

    def numbers(self) -> Floats:
        """Return them in the order in which they travel."""
        return np.concatenate([*(row[i:] for i, row in enumerate(self.gram)), self.cross.ravel()])

    def to_bytes(self) -> bytes:
        """Write them as they travel."""
        return write_numbers(self.numbers())

    @classmethod
    def from_bytes(cls, raw: bytes, *, features: int, classes: int) -> Statistics:
        """Read them, or raise `BadMessage`. What the numbers are is the caller's to check."""
        d = features + 1
        return cls.of(
            read_numbers(raw, d * (d + 1) // 2 + d * classes), features=features, classes=classes
        )

    @classmethod
    def of(cls, numbers: Floats, *, features: int, classes: int) -> Statistics:
        """Put numbers in the order in which they travel into their places."""
        d = features + 1
        upper = d * (d + 1) // 2
        gram, at = np.empty((d, d)), 0
        for i in range(d):
            gram[i, i:] = gram[i:, i] = numbers[at : at + d - i]
            at += d - i
        return cls(gram, numbers[upper:].reshape(d, classes))

    def head(self, penalty: float) -> Floats:
        """Return the head W [d+1, classes] with the least squared error and penalty |W|²."""
        d = len(self.gram)
        return np.asarray(np.linalg.solve(self.gram + penalty * np.eye(d), self.cross))


def read_numbers(raw: bytes, count: int) -> Floats:
    """Read so many finite float32, or raise `BadMessage`."""
    if len(raw) != count * _WIRE.itemsize:
        raise BadMessage(f"expected {count * _WIRE.itemsize} bytes; got {len(raw)}")
    numbers = np.frombuffer(raw, _WIRE).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise BadMessage("expected finite numbers; got an infinity or no number")
    return numbers


def read_head(raw: bytes, *, features: int, classes: int) -> Floats:
    """Read a head [features + 1, classes], row by row, or raise `BadMessage`."""
    return read_numbers(raw, (features + 1) * classes).reshape(features + 1, classes)


def write_numbers(numbers: Floats) -> bytes:
    """Write numbers as they travel."""
    return numbers.astype(_WIRE).tobytes()


def with_ones(embeddings: Floats) -> Floats:
    """Return rows with a one at their end, for the head's last row."""
    return np.hstack([embeddings, np.ones((len(embeddings), 1))])


def scores(head: Floats, embeddings: Floats) -> Floats:
    """Return a head's score of each class [rows, classes]."""
    return np.asarray(with_ones(embeddings) @ head)
