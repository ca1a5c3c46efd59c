"""One block: an operation, how many bytes it makes, and what it needs for that.

Reading a block costs memory in proportion to the block size alone, which the header bounds.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import cast

from pilotwave_protocol.delta import lanes
from pilotwave_protocol.delta.formats import FORMATS, GROUPS, SHIFTS, Format, Ordering
from pilotwave_protocol.delta.streams import SORTED, read_coded, read_stream
from pilotwave_protocol.delta.wire import Cursor, unzigzag
from pilotwave_protocol.delta.zstd import inflate
from pilotwave_protocol.errors import BadDelta

MAX_DICTIONARY = 1 << 20

ReadOld = Callable[[int, int], bytes]
"""Returns a given number of the old file's bytes from an offset that was checked."""


def arithmetic() -> ModuleType:
    """Return the fastest arithmetic that this device has."""
    try:
        from pilotwave_protocol.delta import arrays
    except ImportError:
        return lanes
    return arrays


class Op(enum.IntEnum):
    """A block's operation."""

    COPY = 1
    BYTES = 2
    NUMBERS = 3


class Context(enum.IntEnum):
    """What orders the planes of a block of numbers."""

    NONE = 0
    EXPONENT = 1
    MANTISSA = 2
    SCALE = 3


CONTEXT_BITS = 0x03
PREDICTED = 0x04
PLAIN = 0x08


@dataclass(frozen=True)
class Block:
    """A block whose bounds are checked: it makes `size` bytes at `at` of the new file."""

    op: Op
    at: int
    size: int
    crc: int
    body: bytes


@dataclass(frozen=True)
class Old:
    """The old file: how large it is, and how to read it."""

    size: int
    read: ReadOld

    def span(self, cursor: Cursor, at: int, size: int) -> tuple[int, int]:
        """Read where a span of `size` bytes begins, told as a distance from `at`."""
        start = at + unzigzag(cursor.varint(1 << 60))
        if start < 0 or start + size > self.size:
            raise BadDelta(f"bytes {start} to {start + size} are not in an old file of {self.size}")
        return start, size


def copy_span(block: Block, old: Old) -> tuple[int, int]:
    """Return where a COPY block's bytes lie in the old file, and how many they are."""
    cursor = Cursor(block.body)
    span = old.span(cursor, block.at, block.size)
    cursor.end()
    return span


def build(block: Block, old: Old, math: ModuleType) -> bytes:
    """Return the bytes that a BYTES or NUMBERS block makes."""
    cursor = Cursor(block.body)
    if block.op is Op.BYTES:
        found = _bytes(cursor, block, old)
    else:
        found = _numbers(cursor, block, old, math)
    cursor.end()
    return found


def _bytes(cursor: Cursor, block: Block, old: Old) -> bytes:
    """zstd with a stretch of the old file as dictionary."""
    size = cursor.varint(MAX_DICTIONARY)
    dictionary = old.read(*old.span(cursor, block.at, size)) if size else b""
    return inflate(cursor.take(cursor.left), block.size, dictionary)


def _numbers(cursor: Cursor, block: Block, old: Old, math: ModuleType) -> bytes:
    number = cursor.byte()
    if number >= len(FORMATS):
        raise BadDelta(f"expected a number format of 0 to {len(FORMATS) - 1}; got {number}")
    fmt = FORMATS[number]
    flags = cursor.byte()
    plain = bool(flags & PLAIN)
    if flags & ~(CONTEXT_BITS | PREDICTED | PLAIN) or (plain and flags != PLAIN):
        raise BadDelta(f"a block's flags {flags:#x} do not go together")
    sizes, base, rest = [block.size], b"", bytes(block.size % fmt.width)
    if not plain:
        sizes, base, rest = _base(cursor, block, old, fmt)
    count = (block.size - len(rest)) // fmt.width
    if count == 0:
        raise BadDelta(f"a block of {block.size} bytes holds no number of {fmt.width}")
    ordering = _ordering(cursor, Context(flags & CONTEXT_BITS), base, fmt, math)
    guess = _prediction(cursor, base, fmt, math) if flags & PREDICTED else base
    found = math.join_planes(_planes(cursor, fmt, count, ordering, math))
    rest = lanes.add(rest, read_stream(cursor, len(rest), math), 1)
    if plain:
        whole = math.unrotate(found, fmt.width)
    else:
        whole = math.add(guess, math.unzigzag(found, fmt.width), fmt.width)
    return _joined(whole, rest, sizes, fmt.width)


def _base(cursor: Cursor, block: Block, old: Old, fmt: Format) -> tuple[list[int], bytes, bytes]:
    """Gather the old bytes that the block is compared with: pieces' sizes, numbers, odd ends."""
    sizes, numbers, rest = [], [], []
    at, left = block.at, block.size
    for _ in range(cursor.varint(cursor.left)):
        size = cursor.varint(left)
        start, _ = old.span(cursor, at, size)
        odd = size % fmt.width
        piece = old.read(start, size)
        sizes.append(size)
        numbers.append(piece[: size - odd])
        if odd:
            rest.append(piece[-odd:])
        at, left = start + size, left - size
    if left:
        raise BadDelta(f"expected pieces of {block.size} bytes; they have {block.size - left}")
    return sizes, b"".join(numbers), b"".join(rest)


def _joined(whole: bytes, rest: bytes, sizes: list[int], width: int) -> bytes:
    """Put each piece's odd end behind its numbers."""
    if not rest:
        return whole
    parts, at, odd_at = [], 0, 0
    for size in sizes:
        odd = size % width
        parts += [whole[at : at + size - odd], rest[odd_at : odd_at + odd]]
        at, odd_at = at + size - odd, odd_at + odd
    return b"".join(parts)


def _groups(cursor: Cursor, base: bytes, fmt: Format) -> tuple[int, int]:
    """Read a group's number of elements; return it, and how many groups there are."""
    group = cursor.varint(GROUPS[1])
    if group < GROUPS[0]:
        raise BadDelta(f"expected groups of {GROUPS[0]} to {GROUPS[1]} elements; got {group}")
    return group, -(-(len(base) // fmt.width) // group)


def _ordering(
    cursor: Cursor, context: Context, base: bytes, fmt: Format, math: ModuleType
) -> Ordering | None:
    if context is Context.NONE:
        return None
    if context is Context.EXPONENT:
        return Ordering(math.exponents(base, fmt))
    if context is Context.MANTISSA:
        return Ordering(math.mantissas(base, fmt))
    group, groups = _groups(cursor, base, fmt)
    return cast(Ordering, math.classes(base, fmt, group, read_stream(cursor, groups, math)))


def _prediction(cursor: Cursor, base: bytes, fmt: Format, math: ModuleType) -> bytes:
    if not fmt.lane:
        raise BadDelta(f"numbers of {fmt.name} are not predicted")
    group, groups = _groups(cursor, base, fmt)
    shift = cursor.byte()
    if not SHIFTS[0] <= shift <= SHIFTS[1]:
        raise BadDelta(f"expected a shift of {SHIFTS[0]} to {SHIFTS[1]}; got {shift}")
    low, high = read_stream(cursor, groups, math), read_stream(cursor, groups, math)
    factors = struct.unpack(f"<{groups}h", lanes.join_planes([low, high]))
    return bytes(math.predict(base, fmt, group, shift, list(factors)))


def _planes(
    cursor: Cursor, fmt: Format, count: int, ordering: Ordering | None, math: ModuleType
) -> list[bytes]:
    planes, ordered = [], []
    for k in range(fmt.width):
        coding = cursor.byte()
        if coding & SORTED:
            if ordering is None:
                raise BadDelta("a plane is ordered by contexts that the block does not have")
            ordered.append(k)
        planes.append(read_coded(cursor, coding & ~SORTED, count, math))
    if ordering is not None and ordered:
        found = math.unsort([planes[k] for k in ordered], ordering)
        for k, plane in zip(ordered, found, strict=True):
            planes[k] = plane
    return planes
