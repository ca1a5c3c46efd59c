"""Estimate what a piece of the new file costs against a place in the old one, piece by piece."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from pilotwave_deltas.numbers import Floats, zigzag
from pilotwave_protocol.delta.arrays import Bytes, Elements, elements

PIECE = 4096
_CHANGED = 1.7  # bits beyond its magnitude's that a changed number takes
_SAME = 0.02  # bits a byte of numbers that are the same
# Of two ways that cost the same the wider one is better: its contexts know more.
_FAVOUR = {1: 1.03, 2: 1.0, 4: 0.96, 8: 0.94}
_TABLE_8 = (np.log2(np.arange(256, dtype=np.float32) + 1) + _CHANGED) * _FAVOUR[1]
_TABLE_8[0] = _SAME


class State(NamedTuple):
    """A way to look at the new file: numbers of `width` bytes at positions congruent to `phase`,
    against the old bytes `shift` further on."""

    shift: int
    width: int
    phase: int


def bits_of(residual: Elements) -> Floats:
    """Return about how many bits each residual takes."""
    if residual.dtype.itemsize == 1:
        return cast(Floats, _TABLE_8[residual])
    found: Floats = np.log2(residual.astype(np.float32) + np.float32(1))
    width = residual.dtype.itemsize
    found += np.float32(_CHANGED) * (residual != 0) + np.float32(_SAME * width)
    found *= np.float32(_FAVOUR[width])
    return found


def element_bits(old: Bytes, new: Bytes, start: int, end: int, state: State) -> tuple[int, Floats]:
    """Return where the first whole element lies from `start` on, and the bits of each."""
    width, shift = state.width, state.shift
    low = max(start, -shift)
    high = min(end, len(old) - shift, len(new))
    low += (state.phase - low) % width
    count = max((high - low) // width, 0)
    if count == 0:
        return start, np.zeros(0, np.float32)
    a = elements(new[low : low + count * width].tobytes(), width)
    b = elements(old[low + shift : low + shift + count * width].tobytes(), width)
    return low, bits_of(zigzag(a - b))


def piece_bits(old: Bytes, new: Bytes, first: int, last: int, state: State) -> Floats:
    """Return the bits of pieces `first` to `last` (exclusive); no counterpart costs all."""
    start = first * PIECE
    end = min(last * PIECE, len(new))
    at, bits = element_bits(old, new, start, end, state)
    found: Floats = np.full(last - first, 8.0 * PIECE, np.float32)
    if len(bits):
        place = (at + np.arange(len(bits), dtype=np.int64) * state.width - start) // PIECE
        sums = np.bincount(place, bits, minlength=last - first)
        covered = np.bincount(place, minlength=last - first) * state.width
        found = (sums + 8.0 * (PIECE - covered).clip(0)).astype(np.float32)
    return found


def byte_bits(old: Bytes, new: Bytes, start: int, end: int, state: State) -> Floats:
    """Return the bits of each byte in a short stretch."""
    found = np.full(end - start, 9.0, np.float32)
    at, bits = element_bits(old, new, start, end, state)
    spread = np.repeat(bits / state.width, state.width)
    found[at - start : at - start + len(spread)] = spread
    return found
