"""Lay inputs out as a variant takes them: rows of an array, channels first or last."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def row_fits(array: Array, shape: tuple[int, ...]) -> bool:
    """Say whether each row of an array can be given to an input of this shape."""
    wanted, given = shape if array.ndim > len(shape) else shape[1:], array.shape[1:]
    return len(wanted) == len(given) and all(
        n in (-1, m) for n, m in zip(wanted, given, strict=True)
    )


def turned(array: Array, shape: tuple[int, ...]) -> Array | None:
    """Return the array as the input takes it, with channels last where only that fits; None where
    neither does."""
    for tried in (array, np.moveaxis(array, 1, -1) if array.ndim > 2 else array):
        if row_fits(tried, shape):
            return np.ascontiguousarray(tried)
    return None
