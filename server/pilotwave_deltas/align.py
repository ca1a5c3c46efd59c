"""Align two files: by content, and where that is cheaper by the names of their tensors.

The new file is cut into pieces of 4 KiB. For each, a few shifts are tried, and each width and phase
of numbers at each of them: what begins alike, what ends alike, where a tensor of the same name lies
in the old file if the format is known, and whatever the content itself points to. The cheapest way
through all pieces, where changing one's mind costs something too, gives the segments. Their borders
are then set to the byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from pilotwave_deltas import anchors, tensors
from pilotwave_deltas.costs import PIECE, State, byte_bits, piece_bits
from pilotwave_deltas.numbers import Floats
from pilotwave_deltas.segments import Segment
from pilotwave_protocol.delta.arrays import Bytes
from pilotwave_protocol.delta.formats import BY_NAME

_SWITCH_BITS = 400.0
_ALIKE = 0.80  # of all bits: beyond that, the old bytes are of no use
_LOST = 0.65  # beyond that, a better counterpart is looked for
_WIDTHS = (1, 2, 4, 8)
_NUMBERS = {1: "int8", 2: "float16", 4: "float32", 8: "float64"}
_AT_ONCE = 512  # pieces
_MOST_NAMED = 1000  # stretches that lie elsewhere by name, the longest ones
_ENOUGH = 16  # pieces without a counterpart for which it is not worth searching

Costs = list[dict[State, float]]


def align(old: Bytes, new: Bytes) -> list[Segment]:
    """Return segments that cover the new file in order."""
    pieces = -(-len(new) // PIECE)
    if not len(old) or not pieces:
        return [Segment(0, len(new))] if len(new) else []
    costs: Costs = [{} for _ in range(pieces)]
    for shift in {0, len(old) - len(new)}:
        _rate(old, new, anchors.Reach(shift, 0, pieces, 0), costs)
    for shift, first, last in _named(old, new):
        _rate(old, new, anchors.Reach(shift, first, last, 0), costs)
    lost = np.array([min(c.values(), default=8.0 * PIECE) for c in costs]) > _LOST * 8 * PIECE
    if np.count_nonzero(lost) > min(_ENOUGH, pieces // 8):
        for reach in anchors.find(old, new, lost):
            if reach.shift not in (0, len(old) - len(new)):
                _rate(old, new, reach, costs)
    return list(_segments(old, new, _cheapest(costs, len(new))))


def _named(old: Bytes, new: Bytes) -> Iterator[tuple[int, int, int]]:
    """Yield shift, first and last piece of where tensors of the same name lie elsewhere."""
    before = {t.name: t for t in tensors.find_all(old)}
    runs: list[tuple[int, int, int]] = []
    for tensor in tensors.find_all(new) if before else ():
        known = before.get(tensor.name)
        if known is None or known.dtype != tensor.dtype or not tensor.size:
            continue
        shift = known.start - tensor.start
        first, last = tensor.start // PIECE, -(-(tensor.start + tensor.size) // PIECE)
        if runs and runs[-1][0] == shift and first <= runs[-1][2] + 1:
            first = runs.pop()[1]
        runs.append((shift, first, last))
    elsewhere = (run for run in runs if run[0] not in (0, len(old) - len(new)))
    yield from sorted(elsewhere, key=lambda run: run[1] - run[2])[:_MOST_NAMED]


def _rate(old: Bytes, new: Bytes, reach: anchors.Reach, costs: Costs) -> None:
    """Add what each width and phase costs at a shift, for the pieces it may reach."""
    for first in range(reach.first, reach.last, _AT_ONCE):
        last = min(first + _AT_ONCE, reach.last)
        start, end = first * PIECE, min(last * PIECE, len(new))
        low = start + reach.shift
        if low >= 0 and low + end - start <= len(old):
            same = np.array_equal(new[start:end], old[low : low + end - start])
        else:
            same = False
        for width in _WIDTHS:
            for phase in range(width):
                state = State(reach.shift, width, phase)
                if same:
                    bits: Floats = np.full(last - first, 8.0, np.float32)
                else:
                    bits = piece_bits(old, new, first, last, state)
                for piece in np.flatnonzero(bits < _ALIKE * 8 * PIECE).tolist():
                    costs[first + piece][state] = float(bits[piece])


def _cheapest(costs: Costs, size: int) -> list[State | None]:
    """Return the cheapest state of each piece, with a price on each change (Viterbi)."""
    nothing = _ALIKE * 8 * PIECE
    best: dict[State | None, float] = {None: 0.0}
    back: list[dict[State | None, State | None]] = []
    for states in costs:
        cheapest = min(best, key=lambda s: best[s])
        jump = best[cheapest] + _SWITCH_BITS
        now: dict[State | None, float] = {}
        came: dict[State | None, State | None] = {}
        for state, bits in (*states.items(), (None, nothing)):
            stay = best.get(state, np.inf)
            now[state] = min(stay, jump) + bits
            came[state] = state if stay <= jump else cheapest
        best = now
        back.append(came)
    state = min(best, key=lambda s: best[s])
    path: list[State | None] = []
    for came in reversed(back):
        path.append(state)
        state = came[state]
    return path[::-1]


def _segments(old: Bytes, new: Bytes, path: list[State | None]) -> Iterator[Segment]:
    """Yield segments with borders set to the byte and to whole numbers."""
    runs: list[tuple[int, State | None]] = []
    for piece, state in enumerate(path):
        if not runs or runs[-1][1] != state:
            runs.append((piece, state))
    borders = [0]
    for (_, before), (piece, after) in itertools.pairwise(runs):
        border = _border(old, new, piece * PIECE, before, after)
        if after is not None:
            border += (after.phase - border) % after.width
        borders.append(min(max(border, borders[-1]), len(new)))
    borders.append(len(new))
    for (_, state), start, end in zip(runs, borders, borders[1:], strict=False):
        if end > start:
            yield from _within(old, start, end, state)


def _within(old: Bytes, start: int, end: int, state: State | None) -> Iterator[Segment]:
    """Yield a run as a segment, without what lies outside of the old file."""
    if state is None:
        yield Segment(start, end - start)
        return
    low = min(max(start, -state.shift), end)
    high = max(min(end, len(old) - state.shift), low)
    low = min(low + (state.phase - low) % state.width, high)
    if low > start:
        yield Segment(start, low - start)
    if high > low:
        number = BY_NAME[_NUMBERS[state.width]]
        yield Segment(low, high - low, low + state.shift, number)
    if end > high:
        yield Segment(high, end - high)


def _border(old: Bytes, new: Bytes, middle: int, before: State | None, after: State | None) -> int:
    """Return where the one way of looking had better end and the other begin."""
    start, end = max(middle - PIECE, 0), min(middle + PIECE, len(new))
    left, right = (_bits_or_flat(old, new, start, end, s) for s in (before, after))
    total = np.concatenate([[0.0], np.cumsum(left - right)])
    return start + int(np.argmin(total))


def _bits_or_flat(old: Bytes, new: Bytes, start: int, end: int, state: State | None) -> Floats:
    if state is None:
        return np.full(end - start, 8 * _ALIKE, np.float32)
    return byte_bits(old, new, start, end, state)
