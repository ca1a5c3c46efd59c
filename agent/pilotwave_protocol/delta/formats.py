"""Number formats: where an element's exponent and mantissa lie among its bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

GROUPS = (8, 1 << 16)  # the smallest and the largest group of elements
CLASS_CAP = 127
SHIFTS = (15, 30)  # of the prediction's factors


@dataclass(frozen=True)
class Format:
    """`width` bytes an element, little-endian; the rest counts bits from the lowest one.

    The exponent byte is the eight bits from `exponent_at` under `exponent_mask`; the mantissa byte
    the seven bits from `mantissa_at`. `significand` is the number of mantissa bits that prediction
    scales, the hidden one not counted; `lane` the bytes in which that product fits. Formats without
    `lane` know no prediction.
    """

    name: str
    width: int
    exponent_at: int
    exponent_mask: int
    mantissa_at: int
    significand: int = 0
    lane: int = 0

    @property
    def by_group(self) -> bool:
        """Whether a group's scale alone is its elements' context: not for floats up to 32 bits."""
        return self.lane == 0 or self.width == 1


class Ordering(NamedTuple):
    """The contexts that order planes: one for each element, or with `group` for each so many."""

    contexts: bytes
    group: int = 0


FORMATS = (
    Format("int8", 1, 0, 0xFF, 0, 7, 4),
    Format("int16", 2, 8, 0xFF, 8),
    Format("int32", 4, 24, 0xFF, 16),
    Format("int64", 8, 56, 0xFF, 48),
    Format("float16", 2, 10, 0x1F, 3, 10, 4),
    Format("bfloat16", 2, 7, 0xFF, 0, 7, 4),
    Format("float32", 4, 23, 0xFF, 16, 23, 8),
    Format("float64", 8, 52, 0xFF, 45),
)
BY_NAME = {f.name: i for i, f in enumerate(FORMATS)}
INT8 = FORMATS[0]
