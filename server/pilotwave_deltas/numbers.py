"""Code a block of numbers against old ones: predict, subtract, order by context, pack the planes.

Which prediction and which context pay is decided block by block from estimates of entropy; only
what is chosen is packed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from pilotwave_deltas.packing import entropy, pack
from pilotwave_protocol.delta import arrays
from pilotwave_protocol.delta.arrays import Bytes, Elements
from pilotwave_protocol.delta.blocks import PLAIN, PREDICTED, Context
from pilotwave_protocol.delta.formats import CLASS_CAP, INT8, SHIFTS, Format
from pilotwave_protocol.delta.streams import SORTED, Coding
from pilotwave_protocol.delta.wire import varint

Floats = NDArray[np.float32]
GROUPS = (64, 256)
MAX_ROW = 8192
_CELL_BITS = 5.0  # what a symbol costs that a context meets for the first time
_SCALE_ZERO = 24  # keeps scales of less than one unit above 0
_FLOATS = {"float32": np.float32, "float16": np.float16, "float64": np.float64}
_LITTLE_GAIN = 0.996
_FEW = 0.1  # of the numbers


@dataclass(frozen=True)
class Pair:
    """A block's old and new numbers, as unsigned integers."""

    fmt: Format
    old: Elements
    new: Elements


def zigzag(difference: Elements) -> Elements:
    """Fold signed differences into unsigned numbers: small ones stay small."""
    bits = difference.dtype.itemsize * 8
    signed = difference.view(f"i{difference.dtype.itemsize}")
    return cast(Elements, ((signed << 1) ^ (signed >> (bits - 1))).view(difference.dtype))


def rotate(values: Elements) -> Elements:
    """Move the sign bit to the bottom, so that a float's exponent fills its top byte."""
    top = values.dtype.type(8 * values.dtype.itemsize - 1)
    return cast(Elements, (values << values.dtype.type(1)) | (values >> top))


def planes_of(values: Elements) -> list[Bytes]:
    """Split numbers into planes: all lowest bytes, all second bytes …"""
    table = values.view(np.uint8).reshape(len(values), values.dtype.itemsize)
    return [np.ascontiguousarray(table[:, k]) for k in range(values.dtype.itemsize)]


def magnitude(residual: Elements) -> Floats:
    """Return about how many bits each residual has."""
    return cast(Floats, np.log2(residual.astype(np.float32) + np.float32(1)))


def encode_plain(fmt: Format, values: Elements) -> bytes:
    """Return what describes numbers without old ones, the flags' byte first."""
    body = [bytes((PLAIN,))]
    body += [pack(plane) for plane in planes_of(rotate(values))]
    return b"".join(body)


@dataclass(frozen=True)
class _Prediction:
    group: int
    shift: int
    factors: NDArray[np.int64]

    def pack(self) -> bytes:
        low = (self.factors & 0xFF).astype(np.uint8)
        high = (self.factors >> 8 & 0xFF).astype(np.uint8)
        return varint(self.group) + bytes((self.shift,)) + pack(low) + pack(high)


@dataclass(frozen=True)
class _Ordering:
    """A choice of context: its wire form, each element's context, and estimated bits by plane."""

    context: Context
    header: bytes
    contexts: Bytes | None
    bits: tuple[float, ...]
    extra_bits: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.bits) + self.extra_bits


def planned(pair: Pair, *, hint: int = 0) -> Plan:
    """Choose how to describe new numbers by old ones.

    `hint` is a likely size of groups (a channel's number of weights), 0 if none is known.
    """
    groups = sorted({*GROUPS, hint} if 8 <= hint <= MAX_ROW else {*GROUPS})
    return min((_planned(pair, way) for way in _predictions(pair, groups)), key=lambda p: p.total)


class Plan(NamedTuple):
    """A way to code a block, with its estimated size in bits."""

    prediction: _Prediction | None
    planes: list[Bytes]
    plain: list[float]
    ordering: _Ordering
    total: float

    def pack(self, pieces: bytes) -> bytes:
        """Return what describes the new numbers, the flags' byte first; `pieces` is the wire form
        of where the old ones lie."""
        if self.ordering.contexts is not None and _sparse(self.planes):
            as_it_is = _Ordering(Context.NONE, b"", None, tuple(self.plain))
            return min(self._pack(pieces), self._replace(ordering=as_it_is)._pack(pieces), key=len)
        return self._pack(pieces)

    def _pack(self, pieces: bytes) -> bytes:
        flags = int(self.ordering.context) | (PREDICTED if self.prediction else 0)
        body = [bytes((flags,)), pieces, self.ordering.header]
        if self.prediction:
            body.append(self.prediction.pack())
        contexts = self.ordering.contexts
        order = None if contexts is None else np.argsort(contexts, kind="stable")
        for plane, before, after in zip(self.planes, self.plain, self.ordering.bits, strict=True):
            body.append(_packed_plane(plane, order if after < before - 64 else None))
        return b"".join(body)


def _planned(pair: Pair, way: tuple[_Prediction | None, Elements]) -> Plan:
    """Choose the context that suits a prediction."""
    prediction, residual = way
    planes = planes_of(residual)
    plain = [entropy(np.bincount(p, minlength=256)) for p in planes]
    best = _Ordering(Context.NONE, b"", None, tuple(plain))
    if len(residual) >= 512 and residual.any():
        found = min(_orderings(pair, residual, planes, plain), key=lambda o: o.total)
        if found.total < _LITTLE_GAIN * best.total:
            best = found
    extra = _factor_bits(prediction.factors) if prediction else 0.0
    return Plan(prediction, planes, plain, best, best.total + extra)


def _packed_plane(plane: Bytes, order: NDArray[np.int64] | None) -> bytes:
    if order is None:
        return pack(plane)
    packed = pack(plane[order])
    if packed[0] in (Coding.RAW, Coding.ZERO):
        return pack(plane)
    return bytes((packed[0] | SORTED,)) + packed[1:]


def _sparse(planes: list[Bytes]) -> bool:
    """Say whether so little changed that entropy says little about what will be packed."""
    changed = max(int(np.count_nonzero(p)) for p in planes)
    return changed < _FEW * len(planes[0])


# --- prediction


def _predictions(pair: Pair, groups: list[int]) -> Iterator[tuple[_Prediction | None, Elements]]:
    """Yield no prediction, and the best one if it makes residuals smaller."""
    residual = zigzag(pair.new - pair.old)
    yield None, residual
    if not pair.fmt.lane or len(residual) < 64 or not residual.any():
        return
    old, change = _values(pair)
    least, best = float(magnitude(residual).sum()) * _LITTLE_GAIN - 200, None
    for group in groups:
        bits, made, left = _tried(pair, old, change, group)
        if bits < least:
            least, best = bits, (made, left)
    if best is not None:
        yield best


def pays(pair: Pair, group: int) -> bool:
    """Say whether groups of this size are predicted better than those that are always tried."""
    if not pair.fmt.lane or not 8 <= group <= MAX_ROW:
        return False
    old, change = _values(pair)
    bits = {size: _tried(pair, old, change, size)[0] for size in {*GROUPS, group}}
    bits[0] = float(magnitude(zigzag(pair.new - pair.old)).sum())
    return min(bits, key=lambda size: bits[size]) == group


def _tried(
    pair: Pair, old: NDArray[np.float64], change: NDArray[np.float64], group: int
) -> tuple[float, _Prediction | None, Elements]:
    """Return about how many bits prediction by groups of this size leaves (infinity where none can
    be made), the prediction, and its residuals."""
    made = _fit(old, change, group)
    if made is None:
        return math.inf, None, pair.new
    guess = arrays.predict_array(pair.old, pair.fmt, group, made.shift, made.factors)
    left = zigzag(pair.new - guess)
    return float(magnitude(left).sum()) + _factor_bits(made.factors), made, left


def _values(pair: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return old values and their changes; what is no ordinary number counts as 0."""
    with np.errstate(all="ignore"):
        old, new = (_as_float(x, pair.fmt) for x in (pair.old, pair.new))
        change = new - old
    wrong = ~np.isfinite(old) | ~np.isfinite(change)
    old[wrong] = change[wrong] = 0
    return old, change


def _as_float(x: Elements, fmt: Format) -> NDArray[np.float64]:
    if fmt is INT8:
        return x.view(np.int8).astype(np.float64)
    if fmt.name == "bfloat16":
        return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.view(_FLOATS[fmt.name]).astype(np.float64)


def _fit(old: NDArray[np.float64], change: NDArray[np.float64], group: int) -> _Prediction | None:
    """Fit one factor a group by least squares, no finer than its noise allows."""
    starts = np.arange(0, len(old), group)
    with np.errstate(all="ignore"):
        power = np.add.reduceat(old * old, starts)
        slope = np.add.reduceat(old * change, starts) / power
        noise = change - arrays.per_group(slope, group, len(old)) * old
        error = np.sqrt(np.add.reduceat(noise * noise, starts) / power / group)
    good = np.isfinite(slope) & np.isfinite(error) & (np.abs(slope) < 1)
    if not good.any():
        return None
    typical = float(np.median(error[good]))
    highest = float(np.abs(slope[good]).max())
    if highest < typical or highest == 0:
        return None
    finest = np.log2(1 / typical) if typical > 0 else SHIFTS[1]
    shift = int(np.clip(min(finest, np.log2(32767 / highest)), *SHIFTS))
    factors = np.where(good, np.rint(slope * 2.0**shift), 0)
    return _Prediction(group, shift, np.clip(factors, -32767, 32767).astype(np.int64))


def _factor_bits(factors: NDArray[np.int64]) -> float:
    _, counts = np.unique(factors, return_counts=True)
    return entropy(counts) + _CELL_BITS * len(counts) + 100


# --- contexts


def _orderings(
    pair: Pair, residual: Elements, planes: list[Bytes], plain: list[float]
) -> Iterator[_Ordering]:
    fmt = pair.fmt
    open_ = [k for k, bits in enumerate(plain) if 0 < bits < 7.96 * len(residual)]

    def rated(
        context: Context, contexts: Bytes, header: bytes = b"", extra: float = 0
    ) -> _Ordering:
        bits = list(plain)
        for k in open_:
            bits[k] = min(plain[k], conditional_bits(contexts, planes[k]))
        return _Ordering(context, header, contexts, tuple(bits), extra)

    yield rated(Context.EXPONENT, arrays.exponent_array(pair.old, fmt))
    if fmt.significand > 7:
        yield rated(Context.MANTISSA, arrays.mantissa_array(pair.old, fmt))
    for group in GROUPS:
        scales = _scales(pair, residual, group)
        for choice in _with_flat(scales, fmt):
            contexts = arrays.class_array(pair.old, fmt, group, choice)
            extra = entropy(np.bincount(choice, minlength=256)) + 150
            yield rated(Context.SCALE, contexts, varint(group) + pack(choice), extra)


def _with_flat(scales: Bytes, fmt: Format) -> Iterator[Bytes]:
    """Yield the scales, and once more with the quietest groups left to their mantissas."""
    yield scales
    if fmt.significand < 20:
        return
    low, high = int(scales.min()), int(scales.max())
    if high - low >= 6:
        middle = (low + high) // 2
        yield np.where(scales <= middle, 0, scales).astype(np.uint8)


def _scales(pair: Pair, residual: Elements, group: int) -> Bytes:
    """Return each group's scale: twice the logarithm of its mean residual at its top exponent."""
    size = residual.astype(np.float64)
    starts = np.arange(0, len(size), group)
    if not pair.fmt.by_group:
        exps = arrays.exponent_array(pair.old, pair.fmt)
        tops = arrays.per_group(arrays.group_tops(exps, group), group, len(size))
        size = size * np.exp2(-(tops - exps).astype(np.float64))
    counts = np.diff(np.append(starts, len(size)))
    mean = np.add.reduceat(size, starts) / counts
    found = np.rint(2 * np.log2(mean + 2.0**-11)) + _SCALE_ZERO
    return cast(Bytes, np.clip(found, 1, CLASS_CAP).astype(np.uint8))


def conditional_bits(contexts: Bytes, plane: Bytes) -> float:
    """Return the bits of a plane whose every context has its own distribution."""
    cells = np.bincount(contexts.astype(np.uint16) << 8 | plane, minlength=1 << 16)
    return _rows_entropy(cells) + _CELL_BITS * int(np.count_nonzero(cells))


def _rows_entropy(cells: NDArray[Any]) -> float:
    rows = cells.reshape(256, 256).sum(axis=1)
    rows, full = rows[rows > 0].astype(np.float64), cells[cells > 0].astype(np.float64)
    return float((rows * np.log2(rows)).sum() - (full * np.log2(full)).sum())
