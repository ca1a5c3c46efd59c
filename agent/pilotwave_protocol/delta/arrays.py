"""A block's arithmetic with NumPy, where it is installed: `lanes.py`'s results, sooner."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pilotwave_protocol.delta.formats import CLASS_CAP, INT8, Format, Ordering

Bytes = NDArray[np.uint8]
Elements = NDArray[np.unsignedinteger[Any]]
_TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def elements(data: bytes | memoryview, width: int) -> Elements:
    """View bytes as unsigned little-endian numbers."""
    return cast(Elements, np.frombuffer(data, np.dtype(_TYPES[width]).newbyteorder("<")))


def _type(width: int) -> Any:
    return np.dtype(_TYPES[width]).newbyteorder("<")


def add(a: bytes, b: bytes, width: int) -> bytes:
    return (elements(a, width) + elements(b, width)).tobytes()


def unzigzag(data: bytes, width: int) -> bytes:
    x = elements(data, width)
    one = _type(width).type(1)
    return cast(bytes, ((x >> one) ^ (~(x & one) + one)).tobytes())


def unrotate(data: bytes, width: int) -> bytes:
    x = elements(data, width)
    one, top = _type(width).type(1), _type(width).type(8 * width - 1)
    return cast(bytes, ((x >> one) | (x << top)).tobytes())


def join_planes(planes: list[bytes]) -> bytes:
    out = np.empty((len(planes[0]), len(planes)), np.uint8)
    for k, plane in enumerate(planes):
        out[:, k] = np.frombuffer(plane, np.uint8)
    return out.tobytes()


def scatter(size: int, steps: bytes, has_byte: bytes, values: bytes) -> bytes:
    out = np.zeros(size + 1, np.uint8)
    ends = np.cumsum(np.frombuffer(steps, np.uint8), dtype=np.int64)
    out[ends[np.frombuffer(has_byte, bool)]] = np.frombuffer(values, np.uint8)
    return out[1:].tobytes()


def fill(flat: bytearray, escape: int, values: bytes) -> bytes:
    out = np.frombuffer(flat, np.uint8)
    out[out == escape] = np.frombuffer(values, np.uint8)
    return out.tobytes()


def exponents(base: bytes, fmt: Format) -> bytes:
    return exponent_array(elements(base, fmt.width), fmt).tobytes()


def mantissas(base: bytes, fmt: Format) -> bytes:
    return mantissa_array(elements(base, fmt.width), fmt).tobytes()


def exponent_array(x: Elements, fmt: Format) -> Bytes:
    """Return each element's exponent byte."""
    return ((x >> x.dtype.type(fmt.exponent_at)) & x.dtype.type(fmt.exponent_mask)).astype(np.uint8)


def mantissa_array(x: Elements, fmt: Format) -> Bytes:
    """Return the top seven mantissa bits of each element."""
    return ((x >> x.dtype.type(fmt.mantissa_at)) & x.dtype.type(0x7F)).astype(np.uint8)


def per_group(values: NDArray[Any], group: int, count: int) -> NDArray[Any]:
    """Repeat each group's value for its elements, `count` in all."""
    return np.repeat(values, group)[:count]


def group_tops(exps: Bytes, group: int) -> NDArray[np.int32]:
    """Return the largest exponent byte of each group."""
    starts = np.arange(0, len(exps), group)
    return np.maximum.reduceat(exps, starts).astype(np.int32)


def class_array(x: Elements, fmt: Format, group: int, scales: Bytes) -> Bytes:
    """Return each element's context by its group's scale, or by its mantissa where that is 0."""
    scale = per_group(scales, group, len(x)).astype(np.int32)
    if fmt.by_group:
        return np.minimum(scale, CLASS_CAP).astype(np.uint8)
    exps = exponent_array(x, fmt)
    tops = per_group(group_tops(exps, group), group, len(x))
    found = np.clip(2 * (tops - exps) + scale, 0, CLASS_CAP)
    flat = CLASS_CAP + 1 + mantissa_array(x, fmt).astype(np.int32)
    return np.where(scale == 0, flat, found).astype(np.uint8)


def classes(base: bytes, fmt: Format, group: int, scales: bytes) -> Ordering:
    found = class_array(elements(base, fmt.width), fmt, group, np.frombuffer(scales, np.uint8))
    return Ordering(found.tobytes())


def unsort(planes: list[bytes], ordering: Ordering) -> list[bytes]:
    if not planes:
        return []
    order = np.argsort(np.frombuffer(ordering.contexts, np.uint8), kind="stable")
    found = []
    for plane in planes:
        out = np.empty(len(order), np.uint8)
        out[order] = np.frombuffer(plane, np.uint8)
        found.append(out.tobytes())
    return found


def predict(base: bytes, fmt: Format, group: int, shift: int, factors: list[int]) -> bytes:
    x = elements(base, fmt.width)
    return predict_array(x, fmt, group, shift, np.array(factors, np.int64)).tobytes()


def predict_array(
    x: Elements, fmt: Format, group: int, shift: int, factors: NDArray[np.int64]
) -> Elements:
    """Scale each group's elements by 1 + factor / 2^shift, as integers."""
    wide: Any = np.int64 if fmt.lane == 8 else np.int32
    factor = per_group(factors.astype(wide), group, len(x))
    if fmt is INT8:
        value = x.astype(np.int8).astype(wide)
        product = factor * value
        moved = (np.abs(product) + wide(1 << (shift - 1))) >> wide(shift)
        return cast(Elements, (value + np.sign(product) * moved).astype(x.dtype))
    hidden = 1 << fmt.significand
    significand = (x & x.dtype.type(hidden - 1)).astype(wide) | wide(hidden)
    product = factor * significand
    moved = (np.abs(product) + wide(1 << (shift - 1))) >> wide(shift)
    return cast(Elements, x + (np.sign(product) * moved).astype(x.dtype))
