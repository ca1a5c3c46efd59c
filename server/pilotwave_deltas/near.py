"""Round new weights so that they differ from old ones by whole quanta: far smaller deltas.

What is rounded is the change of each tensor, to multiples of a power of two well below the change's
own spread. The result is an ordinary model file, a little other than the one that was trained;
whether it is as good is for its outputs to show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_deltas import tensors

PART = 32
"""By default a quantum is this part of the standard deviation of a tensor's change."""


@dataclass(frozen=True)
class Rounded:
    """How many tensors of a file were rounded, and by how much the most moved weight was."""

    tensors: int = 0
    largest: float = 0.0


def round_file(old: Path, new: Path, out: Path, quantum: float | None = None) -> Rounded:
    """Write the new file with its changes rounded; `quantum` None chooses one for each tensor."""
    before, after = old.read_bytes(), bytearray(new.read_bytes())
    known = {t.name: t for t in tensors.find(before)}
    count, largest = 0, 0.0
    for t in tensors.find(bytes(after)):
        base = known.get(t.name)
        if base is None or (base.dtype, base.size) != (t.dtype, t.size):
            continue
        a = np.frombuffer(before, base.dtype, base.size // np.dtype(t.dtype).itemsize, base.start)
        b = np.frombuffer(after, t.dtype, t.size // np.dtype(t.dtype).itemsize, t.start)
        found = round_change(a, b, quantum)
        if found is None:
            continue
        moved = np.abs(found.astype(np.float64) - b.astype(np.float64))
        count, largest = count + 1, max(largest, float(moved.max(initial=0)))
        raw = found.tobytes()
        del b
        after[t.start : t.start + t.size] = raw
    out.write_bytes(after)
    return Rounded(count, largest)


def round_change(
    old: NDArray[Any], new: NDArray[Any], quantum: float | None = None
) -> NDArray[Any] | None:
    """Return `new` with its change from `old` in whole quanta; None if nothing changed."""
    with np.errstate(all="ignore"):
        base, change = old.astype(np.float64), new.astype(np.float64) - old.astype(np.float64)
        ordinary = np.isfinite(change)
        spread = float(np.std(change[ordinary])) if ordinary.any() else 0.0
        step = quantum or spread / PART
        if step <= 0 or not math.isfinite(step):
            return None
        step = 2.0 ** math.floor(math.log2(step))
        rounded = (base + np.rint(change / step) * step).astype(new.dtype)
    # what overflowed by rounding, or was no number before, stays as it was trained
    return np.where(ordinary & np.isfinite(rounded), rounded, new)
