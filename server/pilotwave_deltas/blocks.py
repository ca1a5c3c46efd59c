"""Turn segments into blocks: join small ones, split large ones, code each the smallest way."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pilotwave_deltas.numbers import Pair, encode_numbers, encode_plain, planes_of, rotate
from pilotwave_deltas.packing import compress, entropy, pack
from pilotwave_deltas.segments import Segment
from pilotwave_protocol.delta.arrays import Bytes, Elements, elements
from pilotwave_protocol.delta.blocks import Op
from pilotwave_protocol.delta.formats import BY_NAME, FORMATS
from pilotwave_protocol.delta.wire import varint, zigzag

BLOCK = 256 << 10
_MIN_COPY = 64 << 10  # shorter ones cost next to nothing among numbers, and no block of their own
_GRAIN = 1 << 10
_REACH = 96 << 10  # of old bytes to either side, as a dictionary
_PLAIN = ("float32", "float16", "float64", "int8")


@dataclass
class Group:
    """Neighbouring segments that one block can hold."""

    segments: list[Segment] = field(default_factory=list)

    @property
    def start(self) -> int:
        return self.segments[0].start

    @property
    def size(self) -> int:
        return self.segments[-1].end - self.start


def with_copies(old: Bytes, new: Bytes, segments: Iterable[Segment]) -> Iterator[Segment]:
    """Split off long stretches that did not change at all."""
    for s in segments:
        if s.old is None or s.size < _MIN_COPY:
            yield s
            continue
        width = s.fmt.width if s.fmt else 1
        at = s.start
        for start, end in _equal_runs(old, new, s):
            start += -(start - s.start) % width
            if end < s.end:
                end -= (end - s.start) % width
            if end - start < _MIN_COPY:
                continue
            if start > at:
                yield s.cut(at, start)
            yield Segment(start, end - start, s.old + start - s.start, copy=True)
            at = end
        if at < s.end:
            yield s.cut(at, s.end)


def _equal_runs(old: Bytes, new: Bytes, s: Segment) -> Iterator[tuple[int, int]]:
    """Yield the stretches of equal bytes, as long as _MIN_COPY, in grains."""
    assert s.old is not None
    run = None
    for at in range(s.start, s.end, 1 << 20):
        end = min(at + (1 << 20), s.end)
        low = s.old + at - s.start
        differs = np.flatnonzero(new[at:end] != old[low : low + end - at])
        grains = np.unique(differs // _GRAIN)
        changed = np.zeros(-(-(end - at) // _GRAIN), bool)
        changed[grains] = True
        for grain, is_changed in enumerate(changed.tolist()):
            place = at + grain * _GRAIN
            if not is_changed and run is None:
                run = place
            elif is_changed and run is not None:
                if place - run >= _MIN_COPY:
                    yield run, place
                run = None
    if run is not None and s.end - run >= _MIN_COPY:
        yield run, s.end


def grouped(segments: Iterable[Segment], block: int = BLOCK) -> Iterator[Group]:
    """Yield groups no larger than a block (copies may be of any size)."""
    group = Group()
    for whole in segments:
        segment: Segment | None = whole
        while segment is not None:
            if group.segments and not _fits(group, segment, block):
                yield group
                group = Group()
            room = segment.size if segment.copy else block - (group.size if group.segments else 0)
            width = segment.fmt.width if segment.fmt else 1
            take = segment.size if segment.size <= room else room - room % width
            if take == 0:
                yield group
                group = Group()
                continue
            group.segments.append(segment.cut(segment.start, segment.start + take))
            rest = segment.start + take
            segment = segment.cut(rest, segment.end) if rest < segment.end else None
    if group.segments:
        yield group


def _fits(group: Group, segment: Segment, block: int) -> bool:
    first, last = group.segments[0], group.segments[-1]
    if segment.copy or first.copy or group.size >= block:
        return False
    if (first.number, first.old is None) != (segment.number, segment.old is None):
        return False
    return (
        first.old is not None or last.number is None or last.size % FORMATS[last.number].width == 0
    )


def encode(old: Bytes, new: Bytes, group: Group) -> bytes:
    """Return one block: its head and its body."""
    first = group.segments[0]
    raw = new[group.start : group.start + group.size].tobytes()
    if first.copy:
        assert first.old is not None
        return _framed(Op.COPY, raw, varint(zigzag(first.old - group.start)))
    ways = []
    if first.old is not None and any(s.fmt and s.size >= s.fmt.width for s in group.segments):
        ways.append(_against(old, new, group))
    if first.old is None:
        ways.extend(_plain(new, group))
    best = min(ways, key=len, default=b"")
    # What is numbers and came out well need not be tried as text.
    if not best or len(best) > 0.02 * len(raw):
        other = _as_text(old, group, raw, quick=bool(best), limit=len(best))
        best = other if not best or (other and len(other) < len(best)) else best
    return best


def _framed(op: Op, raw: bytes, body: bytes) -> bytes:
    head = bytes((op,)) + varint(len(raw)) + varint(len(body))
    return head + zlib.crc32(raw).to_bytes(4, "little") + body


def _against(old: Bytes, new: Bytes, group: Group) -> bytes:
    number = group.segments[0].number
    assert number is not None
    width = FORMATS[number].width
    pieces, at = [varint(len(group.segments))], group.start
    parts: list[tuple[bytes, bytes]] = []
    odd: list[tuple[bytes, bytes]] = []
    for s in group.segments:
        assert s.old is not None
        pieces.append(varint(s.size) + varint(zigzag(s.old - at)))
        at = s.old + s.size
        a, b = old[s.old : at].tobytes(), new[s.start : s.end].tobytes()
        even = s.size - s.size % width
        parts.append((a[:even], b[:even]))
        odd.append((a[even:], b[even:]))
    base, target = (elements(b"".join(side), width) for side in zip(*parts, strict=True))
    rest_old, rest_new = (np.frombuffer(b"".join(x), np.uint8) for x in zip(*odd, strict=True))
    raw = new[group.start : group.start + group.size].tobytes()
    hint = max(s.hint for s in group.segments)
    if FORMATS[number].name == "float16" and _is_bfloat16(base):
        number = BY_NAME["bfloat16"]
    body = encode_numbers(Pair(FORMATS[number], base, target), b"".join(pieces), hint=hint)
    body = bytes((number,)) + body + pack(rest_new - rest_old)
    return _framed(Op.NUMBERS, raw, body)


def _is_bfloat16(values: Elements) -> bool:
    """Say whether the upper bits look like bfloat16's eight of exponent."""
    exponents = np.bincount((values >> np.uint16(7)) & np.uint16(0xFF), minlength=256)
    return entropy(exponents) < 4.2 * len(values)


def _plain(new: Bytes, group: Group) -> Iterator[bytes]:
    """Yield the group as numbers without old ones, where it looks like numbers."""
    raw = new[group.start : group.start + group.size].tobytes()
    known = group.segments[0].number
    names = _PLAIN if known is None else (FORMATS[known].name,)
    best, chosen = 7.95 * len(raw), None
    for name in names:
        width = FORMATS[BY_NAME[name]].width
        count = len(raw) // width
        if count < 64:
            continue
        planes = planes_of(rotate(elements(raw[: count * width], width)))
        bits = sum(entropy(np.bincount(p, minlength=256)) + 600 for p in planes)
        if bits < best:
            best, chosen = bits, name
    if chosen is not None:
        number = BY_NAME[chosen]
        fmt = FORMATS[number]
        even = len(raw) - len(raw) % fmt.width
        body = bytes((number,)) + encode_plain(fmt, elements(raw[:even], fmt.width))
        rest = np.frombuffer(raw[even:], np.uint8)
        yield _framed(Op.NUMBERS, raw, body + pack(rest))


def _as_text(old: Bytes, group: Group, raw: bytes, *, quick: bool, limit: int) -> bytes:
    """Return the group as zstd with old bytes as dictionary; nothing if it is far from `limit`."""
    place = group.segments[0].old
    middle = group.start if place is None else place
    low = min(max(middle - _REACH, 0), len(old))
    high = min(middle + group.size + _REACH, len(old))
    dictionary = old[low:high].tobytes() if high > low + 8 else b""
    if quick and len(compress(raw, dictionary, 3)) > 1.2 * limit:
        return b""
    head = varint(len(dictionary))
    if dictionary:
        head += varint(zigzag(low - group.start))
    return _framed(Op.BYTES, raw, head + compress(raw, dictionary))
