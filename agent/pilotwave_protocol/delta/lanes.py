"""A block's arithmetic with the standard library: all elements at once, inside one large integer.

An integer of n bytes is n/w lanes of w bytes each. Sums keep each lane's top bit out of the
addition, so that no carry leaves its lane. `arrays.py` does the same with NumPy.
"""

from __future__ import annotations

from array import array
from collections import Counter
from functools import lru_cache
from itertools import accumulate, chain, compress, zip_longest

from pilotwave_protocol.delta.formats import CLASS_CAP, INT8, Format, Ordering

_PLANE_TYPES = {1: "B", 2: "H", 3: "I", 4: "I", 5: "Q", 6: "Q", 7: "Q", 8: "Q"}


def _mask(lane: bytes, count: int) -> int:
    return int.from_bytes(lane * count, "little")


@lru_cache(maxsize=16)
def _masks(width: int, count: int) -> tuple[int, int, int]:
    """All bits but each lane's top one, the top ones, and the lowest ones."""
    low = b"\xff" * (width - 1) + b"\x7f"
    high = bytes(width - 1) + b"\x80"
    return _mask(low, count), _mask(high, count), _mask(b"\x01" + bytes(width - 1), count)


def add(a: bytes, b: bytes, width: int) -> bytes:
    """Add element by element, modulo 2^(8 width)."""
    low, high, _ = _masks(width, len(a) // width)
    x, y = int.from_bytes(a, "little"), int.from_bytes(b, "little")
    return (((x & low) + (y & low)) ^ ((x ^ y) & high)).to_bytes(len(a), "little")


def unzigzag(data: bytes, width: int) -> bytes:
    """Turn 0, 1, 2, 3 … into 0, -1, 1, -2 … element by element."""
    low, _, ones = _masks(width, len(data) // width)
    x = int.from_bytes(data, "little")
    odd = x & ones
    return ((x >> 1) & low ^ ((odd << (8 * width)) - odd)).to_bytes(len(data), "little")


def unrotate(data: bytes, width: int) -> bytes:
    """Move each element's lowest bit to its top: the sign's place in plain numbers."""
    low, _, ones = _masks(width, len(data) // width)
    x = int.from_bytes(data, "little")
    return ((x >> 1) & low | (x & ones) << (8 * width - 1)).to_bytes(len(data), "little")


def join_planes(planes: list[bytes]) -> bytes:
    """Put planes (all lowest bytes, all second bytes …) back into elements."""
    width = len(planes)
    if width == 1:
        return planes[0]
    out = bytearray(width * len(planes[0]))
    for k, plane in enumerate(planes):
        out[k::width] = plane
    return bytes(out)


def scatter(size: int, steps: bytes, has_byte: bytes, values: bytes) -> bytes:
    """Put `values` among zeros: each is the last byte of a step that has one."""
    out = bytearray(size + 1)
    for after, value in zip(compress(accumulate(steps), has_byte), values, strict=True):
        out[after] = value
    return bytes(memoryview(out)[1:])


def fill(flat: bytearray, escape: int, values: bytes) -> bytes:
    """Put `values` in the places of `escape`, in order."""
    if len(values) * 5 < len(flat):
        parts = map(_SINGLE.__getitem__, values)
        split = bytes(flat).split(_SINGLE[escape])
        return b"".join(chain.from_iterable(zip_longest(split, parts, fillvalue=b"")))
    rest = iter(values)
    return bytes([next(rest) if v == escape else v for v in flat])


_SINGLE = [bytes((v,)) for v in range(256)]


def exponents(base: bytes, fmt: Format) -> bytes:
    """Return each element's exponent byte."""
    return _bits(base, fmt, fmt.exponent_at, fmt.exponent_mask)


def mantissas(base: bytes, fmt: Format) -> bytes:
    """Return the top seven mantissa bits of each element."""
    return _bits(base, fmt, fmt.mantissa_at, 0x7F)


def _bits(base: bytes, fmt: Format, at: int, mask: int) -> bytes:
    x = int.from_bytes(base, "little") >> at
    found = x.to_bytes(len(base), "little")[:: fmt.width]
    return found if mask == 0xFF else found.translate(_masked(mask))


@lru_cache(maxsize=8)
def _masked(mask: int) -> bytes:
    return bytes(i & mask for i in range(256))


@lru_cache(maxsize=1024)
def _class_table(top: int) -> bytes:
    return bytes(min(max(top - 2 * e, 0), CLASS_CAP) for e in range(256))


_CAPPED = bytes(min(i, CLASS_CAP) for i in range(256))
_FLAT = bytes(CLASS_CAP + 1 + (i & CLASS_CAP) for i in range(256))


def classes(base: bytes, fmt: Format, group: int, scales: bytes) -> Ordering:
    """Return each element's context by its group's scale, or by its mantissa where that is 0."""
    if fmt.by_group:
        return Ordering(scales.translate(_CAPPED), group)
    exps, mants = exponents(base, fmt), mantissas(base, fmt)
    parts = []
    for g, scale in enumerate(scales):
        span = slice(g * group, (g + 1) * group)
        if scale == 0:
            parts.append(mants[span].translate(_FLAT))
        else:
            own = exps[span]
            parts.append(own.translate(_class_table(2 * max(own) + scale)))
    return Ordering(b"".join(parts))


def unsort(planes: list[bytes], ordering: Ordering) -> list[bytes]:
    """Put planes that are ordered by context back into the elements' own order."""
    contexts = ordering.contexts
    if ordering.group:
        return [_unsort_groups(plane, contexts, ordering.group) for plane in planes]
    if not planes:
        return []
    kind = _PLANE_TYPES[len(planes)]
    size = array(kind).itemsize
    joined: bytes | array[int] = planes[0]
    if size > 1:
        padded = planes + [bytes(len(contexts))] * (size - len(planes))
        joined = array(kind, join_planes(padded))
    view = memoryview(joined)
    counts = _counted(contexts)
    sources, start = [], 0
    for context in range(256):
        sources.append(iter(view[start : start + counts[context]]))
        start += counts[context]
    found = array(kind, map(next, map(sources.__getitem__, contexts)))
    data = found.tobytes()
    return [data[k::size] for k in range(len(planes))]


def _counted(data: bytes) -> Counter[int]:
    """Count the bytes, two at a time."""
    even = len(data) - len(data) % 2
    found = Counter(data[even:])
    for pair, count in Counter(memoryview(data)[:even].cast("H")).items():
        found[pair & 0xFF] += count
        found[pair >> 8] += count
    return found


def _unsort_groups(plane: bytes, contexts: bytes, group: int) -> bytes:
    """As `unsort`, for one plane whose contexts are the same throughout each group."""
    last = len(plane) - (len(contexts) - 1) * group
    sizes = [group] * (len(contexts) - 1) + [last]
    ends = [0] * 257
    for context, size in zip(contexts, sizes, strict=True):
        ends[context + 1] += size
    places = list(accumulate(ends))
    parts = []
    for context, size in zip(contexts, sizes, strict=True):
        start = places[context]
        places[context] = start + size
        parts.append(plane[start : start + size])
    return b"".join(parts)


def predict(base: bytes, fmt: Format, group: int, shift: int, factors: list[int]) -> bytes:
    """Scale each group's elements by 1 + factor / 2^shift, as integers."""
    if fmt is INT8:
        parts = [
            base[g * group : (g + 1) * group].translate(_int8_table(factor, shift))
            for g, factor in enumerate(factors)
        ]
        return b"".join(parts)
    return add(base, _scaled(base, fmt, group, shift, factors), fmt.width)


@lru_cache(maxsize=4096)
def _int8_table(factor: int, shift: int) -> bytes:
    size, half = abs(factor), 1 << (shift - 1)
    moved = [(size * v + half) >> shift for v in range(129)]
    ahead = [v + m if factor > 0 else v - m for v, m in enumerate(moved)]
    return bytes([v & 0xFF for v in ahead[:128]] + [-v & 0xFF for v in ahead[128:0:-1]])


def _scaled(base: bytes, fmt: Format, group: int, shift: int, factors: list[int]) -> bytes:
    """Return what prediction adds to each element: its significand times the group's factor."""
    lane, count = fmt.lane, len(base) // fmt.width
    spread = bytearray(lane * count)
    for k in range(fmt.width):
        spread[k::lane] = base[k :: fmt.width]
    x = int.from_bytes(spread, "little")
    hidden = 1 << fmt.significand
    x &= _mask((hidden - 1).to_bytes(lane, "little"), count)
    spread[:] = (x | _mask(hidden.to_bytes(lane, "little"), count)).to_bytes(len(spread), "little")
    half = (1 << (shift - 1)).to_bytes(lane, "little")
    keep = ((1 << (8 * lane - shift)) - 1).to_bytes(lane, "little")
    whole = (1 << (8 * fmt.width)).to_bytes(lane, "little")
    halves, keeps, wholes = (_mask(part, group) for part in (half, keep, whole))
    step = group * lane
    for g, factor in enumerate(factors):
        span = slice(g * step, min((g + 1) * step, len(spread)))
        moved = (int.from_bytes(spread[span], "little") * abs(factor) + halves) >> shift & keeps
        if factor < 0:
            moved = wholes - moved
        size = span.stop - span.start
        spread[span] = (moved & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    out = bytearray(len(base))
    for k in range(fmt.width):
        out[k :: fmt.width] = spread[k::lane]
    return bytes(out)
