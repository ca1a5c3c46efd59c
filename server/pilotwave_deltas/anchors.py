"""Find where the new file's content lies in the old one, whatever moved.

Fine-tuning changes every number, but hardly ever its topmost bits. So a rolling hash goes over the
top bytes alone, at the stride of each width of numbers; places whose hash occurs once in each file
are anchors, and the distance between them is a shift that many neighbours share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilotwave_deltas.costs import PIECE
from pilotwave_protocol.delta.arrays import Bytes

_CHUNK = 1 << 20
_REACH = 24  # pieces to either side of its anchors in which a shift is tried
_GAP = 64
_MOST = 6  # shifts tried for a piece


class Kind(NamedTuple):
    """A view of the bytes: what is added to a byte and which bits count, at which stride."""

    stride: int
    add: int
    mask: int
    length: int  # of the window, in elements: a power of two


KINDS = (
    Kind(1, 0, 0xFF, 32),  # bytes as they are
    Kind(1, 8, 0xF0, 32),  # int8: values around 0 fall together
    Kind(2, 0, 0xFC, 16),  # float16, bfloat16: without the mantissa's top
    Kind(4, 0, 0xFF, 16),  # float32
    Kind(8, 0, 0xFF, 16),  # float64
)


class Reach(NamedTuple):
    """Pieces `first` to `last` (exclusive) in which a shift is worth trying."""

    shift: int
    first: int
    last: int
    votes: int


def find(old: Bytes, new: Bytes, wanted: NDArray[np.bool_]) -> list[Reach]:
    """Return shifts for the pieces of the new file that are wanted."""
    votes: dict[tuple[int, int], int] = {}
    sample = 5 if len(new) > 1 << 22 else 3
    for kind in KINDS:
        hashes, places = _unique(_anchors(old, kind, sample, None))
        found, here = _unique(_anchors(new, kind, sample, wanted))
        at = np.searchsorted(hashes, found)
        at[at == len(hashes)] = 0
        if not len(hashes):
            continue
        hit = hashes[at] == found
        shift = places[at[hit]] - here[hit]
        pairs = np.stack([here[hit] // PIECE, shift], axis=1)
        rows, counts = np.unique(pairs, axis=0, return_counts=True)
        for (piece, distance), count in zip(rows.tolist(), counts.tolist(), strict=True):
            votes[piece, distance] = votes.get((piece, distance), 0) + count
    return _reaches(votes, len(wanted))


def _reaches(votes: dict[tuple[int, int], int], pieces: int) -> list[Reach]:
    by_shift: dict[int, list[tuple[int, int]]] = {}
    for (piece, shift), count in sorted(votes.items()):
        by_shift.setdefault(shift, []).append((piece, count))
    found: list[Reach] = []
    for shift, places in by_shift.items():
        first = last = places[0][0]
        total = 0
        for piece, count in places:
            if piece - last > _GAP:
                found.append(Reach(shift, first, last, total))
                first, total = piece, 0
            last, total = piece, total + count
        found.append(Reach(shift, first, last, total))
    strong = sorted((r for r in found if r.votes >= 2), key=lambda r: -r.votes)
    return list(_thinned(strong, pieces))


def _thinned(strong: list[Reach], pieces: int) -> Iterator[Reach]:
    """Yield the strongest shifts, until each piece has enough of them."""
    taken = np.zeros(pieces, np.int16)
    for r in strong:
        first, last = max(r.first - _REACH, 0), min(r.last + 1 + _REACH, pieces)
        if taken[first:last].min() < _MOST:
            taken[first:last] += 1
            yield Reach(r.shift, first, last, r.votes)


def _anchors(
    data: Bytes, kind: Kind, sample: int, wanted: NDArray[np.bool_] | None
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """Yield sampled hashes and their places, chunk by chunk."""
    span = kind.stride * kind.length
    for start in range(0, len(data), _CHUNK):
        if wanted is not None:
            pieces = slice(start // PIECE, (start + _CHUNK) // PIECE)
            if not wanted[pieces].any():
                continue
        chunk = data[start : start + _CHUNK + span - kind.stride]
        if len(chunk) < span:
            continue
        h = ((chunk + np.uint8(kind.add)) & np.uint8(kind.mask)).astype(np.uint32)
        h += np.uint32(1)
        step, factor = kind.stride, 0x9E3779B1
        for _ in range(kind.length.bit_length() - 1):
            h = h[:-step] * np.uint32(factor) + h[step:]
            step, factor = step * 2, factor * factor & 0xFFFFFFFF
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x2C1B3C6D)
        h ^= h >> np.uint32(13)
        chosen = np.flatnonzero((h & np.uint32((1 << sample) - 1)) == 0)
        if wanted is not None:
            chosen = chosen[wanted[(chosen + start) // PIECE]]
        yield h[chosen], chosen.astype(np.int64) + start


def _unique(
    found: Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]],
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return hashes that occur once, in order, and their places."""
    parts = list(found)
    if not parts:
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    hashes = np.concatenate([h for h, _ in parts])
    places = np.concatenate([p for _, p in parts])
    order = np.argsort(hashes, kind="stable")
    hashes, places = hashes[order], places[order]
    first = np.ones(len(hashes), bool)
    first[1:] = hashes[1:] != hashes[:-1]
    last = np.ones(len(hashes), bool)
    last[:-1] = first[1:]
    once = first & last
    return hashes[once], places[once]
