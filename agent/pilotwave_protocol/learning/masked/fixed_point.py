"""Numbers of `ridge` as whole ones modulo 2^32 or 2^64, whose sums over a group are exact.

A plan bounds each number, so width and fraction follow from the plan alone: all of a group have
the same. 32 bits are taken where they leave 20 behind the point: rounding is then less than what
the server's checks let pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.statistics import Floats

Whole: TypeAlias = NDArray[Any]
"""Unsigned numbers of the form's width; they go round."""
_LEAST_FRACTION = 20
_MOST_FRACTION = 32
_ROUNDING = 1 + 1e-6
"""Numbers come as float32, which may be a little longer than the plan allows."""


@dataclass(frozen=True)
class FixedPoint:
    """`bits` a number, `fraction` of them behind the point; none of a device is above `most`."""

    bits: int
    fraction: int
    most: float
    count: int

    @classmethod
    def of(cls, plan: TrainingPlan) -> FixedPoint:
        """The form of a plan's numbers. Raises `BadMessage` where 64 bits are too few."""
        most = plan.most_examples * max(float(plan.clip) ** 2, 1) * _ROUNDING
        whole = int(np.ceil(np.log2(most * plan.privacy.group + 1))) + 1  # and the sign
        count = plan.update_bytes // 4
        for bits in (32, 64):
            if bits - whole >= _LEAST_FRACTION:
                return cls(bits, min(bits - whole, _MOST_FRACTION), most, count)
        raise BadMessage(f"plan {plan.plan}: numbers up to {most:g} are too large to be masked")

    @property
    def dtype(self) -> np.dtype[Any]:
        """How a number lies in memory and on the wire."""
        return np.dtype(f"<u{self.bits // 8}")

    @property
    def size(self) -> int:
        """How many bytes all numbers of a device have."""
        return self.count * self.dtype.itemsize

    def encode(self, numbers: Floats) -> Whole:
        """Return a device's numbers as whole ones, or raise `BadMessage`."""
        if numbers.shape != (self.count,) or not (np.abs(numbers) <= self.most).all():
            raise BadMessage(f"expected {self.count} numbers of at most {self.most:g}")
        return np.rint(numbers * 2.0**self.fraction).astype("<i8").astype(self.dtype)

    def decode(self, total: Whole) -> Floats:
        """Return the sum over a group as numbers."""
        signed = total.astype(self.dtype).view(f"<i{self.bits // 8}")
        return np.asarray(signed.astype(np.float64) / 2.0**self.fraction)

    def read(self, raw: bytes) -> Whole:
        """Read what a device sent."""
        if len(raw) != self.size:
            raise BadMessage(f"expected {self.size} bytes of masked numbers; got {len(raw)}")
        return np.frombuffer(raw, self.dtype)
