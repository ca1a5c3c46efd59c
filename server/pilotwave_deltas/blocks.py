"""Turn segments into blocks: join small ones, split large ones, code each the smallest way."""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from pilotwave_deltas.numbers import Pair, encode_plain, pays, planes_of, planned, rotate
from pilotwave_deltas.packing import compress, entropy, pack
from pilotwave_deltas.segments import Segment
from pilotwave_deltas.tensors import Tensor
from pilotwave_protocol.delta.arrays import Bytes, Elements, elements
from pilotwave_protocol.delta.blocks import Op
from pilotwave_protocol.delta.formats import BY_NAME, FORMATS
from pilotwave_protocol.delta.wire import varint, zigzag

BLOCK = 256 << 10
_MIN_COPY = 64 << 10  # shorter ones cost next to nothing among numbers, and no block of their own
_GRAIN = 1 << 10
_REACH = 96 << 10  # of old bytes to either side, as a dictionary
_PLAIN = ("float32", "float16", "float64", "int8")
_WELL = 0.02  # of its bytes: what comes out so well as numbers need not be tried as text
_QUICK, _FAIR = 3, 12  # levels of zstd
_WORSE = 1.5  # times what is quickly made of the text: then numbers are of no use
_BLOCK_COSTS = 60  # bytes of heads and tables, about, that one block more takes
_SPARSE = 0.1  # of a group's bytes: of what takes less, guesses say little
_CLEARLY, _DOUBTFUL = 0.9, 1.1  # times another guess: what takes less, or more, is not tried
_MIN_TENSOR, _MIN_ROWS = 512, 8 << 10  # bytes that are worth a block, and a closer look
_NEAR = 1.2  # times what the numbers took: below that the text may be smaller
_NUMBERS = {
    "<f8": "float64",
    "<f4": "float32",
    "<f2": "float16",
    "<u2": "bfloat16",
    "<i8": "int64",
    "<i4": "int32",
    "<i2": "int16",
    "|i1": "int8",
}


@dataclass
class Group:
    """Neighbouring segments that one block can hold."""

    segments: list[Segment] = field(default_factory=list)

    @property
    def start(self) -> int:
        return self.segments[0].start

    @property
    def end(self) -> int:
        return self.segments[-1].end

    @property
    def size(self) -> int:
        return self.end - self.start


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


class Text(NamedTuple):
    """A group that is no numbers: better as zstd upon old bytes, of which a fair level makes
    `guess` bytes."""

    group: Group
    guess: int


class _Numbers(NamedTuple):
    """How a group would be coded as numbers, and about how many bytes it would take."""

    guess: float
    encode: Callable[[], bytes]


def encode(old: Bytes, new: Bytes, group: Group, known: Sequence[Tensor] = ()) -> bytes | Text:
    """Return the group's blocks, each with head and body; or that it is text, not packed yet.

    It is one block, or one for each stretch of the new file's tensors (`known`, as they lie there)
    that have another kind of numbers or other rows, if that is smaller.
    """
    first = group.segments[0]
    raw = new[group.start : group.end].tobytes()
    if first.copy:
        assert first.old is not None
        return _framed(Op.COPY, raw, varint(zigzag(first.old - group.start)))
    way = _plain(new, group) if first.old is None else _best_against(old, new, group, known)
    if way is not None and way.guess <= _WELL * len(raw):
        return way.encode()
    _, dictionary = _around(old, group)
    quick = len(compress(raw, dictionary, _QUICK))
    if way is None or way.guess > _WORSE * quick:
        return Text(group, len(compress(raw, dictionary, _FAIR)))
    best = way.encode()
    if quick <= _NEAR * len(best):
        best = min(best, as_text(old, new, group), key=len)
    return best


def _framed(op: Op, raw: bytes, body: bytes) -> bytes:
    head = bytes((op,)) + varint(len(raw)) + varint(len(body))
    return head + zlib.crc32(raw).to_bytes(4, "little") + body


def _best_against(old: Bytes, new: Bytes, group: Group, known: Sequence[Tensor]) -> _Numbers | None:
    whole = _against(old, new, group)
    stretches = _by_tensor(old, new, group, known)
    if whole is None or len(stretches) < 2:
        return whole
    parts = [_against(old, new, Group([s])) for s in stretches]
    ready = [part for part in parts if part is not None]
    cut = _Numbers(
        sum(part.guess + _BLOCK_COSTS for part in ready),
        lambda: b"".join(part.encode() for part in ready),
    )
    if len(ready) < len(parts) or cut.guess > _DOUBTFUL * whole.guess:
        return whole
    if cut.guess < _CLEARLY * whole.guess and whole.guess > _SPARSE * group.size:
        return cut
    return _Numbers(whole.guess, lambda: min(whole.encode(), cut.encode(), key=len))


def _by_tensor(old: Bytes, new: Bytes, group: Group, known: Sequence[Tensor]) -> list[Segment]:
    """Cut a group where the kind of numbers changes, or the rows where these help to predict.

    What lies between two tensors, names and shapes, goes with the one before.
    """
    found: list[Segment] = []
    for s in group.segments:
        at = s.start
        low = bisect_right(known, s.start, key=lambda t: t.end)
        high = bisect_left(known, s.end, key=lambda t: t.start)
        for t in known[low:high]:
            start, end = max(t.start, at), min(t.end, s.end)  # tensors may say that they overlap
            if end - start < _MIN_TENSOR:
                continue
            if start > at:
                found.append(s.cut(at, start))
            part = replace(s.cut(start, end), number=BY_NAME[_NUMBERS[t.dtype]])
            found.append(replace(part, hint=_row(old, new, part, t.row)))
            at = end
        if at < s.end:
            found.append(s.cut(at, s.end))
    joined: list[Segment] = []
    for s in found:
        last = joined[-1] if joined else None
        if last and last.end_of_old == s.old and (s.size < _MIN_TENSOR or last.like(s)):
            joined[-1] = replace(last, size=last.size + s.size)
        else:
            joined.append(s)
    return joined


def _row(old: Bytes, new: Bytes, part: Segment, row: int) -> int:
    """Return the row's size if groups of it are predicted better than others."""
    assert part.old is not None
    assert part.fmt is not None
    if part.size < _MIN_ROWS:
        return 0
    even = part.size - part.size % part.fmt.width
    sides = (old[part.old : part.old + even], new[part.start : part.start + even])
    pair = Pair(part.fmt, *(elements(side.tobytes(), part.fmt.width) for side in sides))
    return row if pays(pair, row) else 0


def _against(old: Bytes, new: Bytes, group: Group) -> _Numbers | None:
    """Say how the group is described by old numbers; None if it holds none."""
    number = group.segments[0].number
    if number is None or all(s.size < FORMATS[number].width for s in group.segments):
        return None
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
    hint = max(s.hint for s in group.segments)
    if FORMATS[number].name == "float16" and _is_bfloat16(base):
        number = BY_NAME["bfloat16"]
    plan = planned(Pair(FORMATS[number], base, target), hint=hint)

    def encode() -> bytes:
        body = bytes((number,)) + plan.pack(b"".join(pieces)) + pack(rest_new - rest_old)
        return _framed(Op.NUMBERS, new[group.start : group.end].tobytes(), body)

    return _Numbers(plan.total / 8, encode)


def _is_bfloat16(values: Elements) -> bool:
    """Say whether the upper bits look like bfloat16's eight of exponent."""
    exponents = np.bincount((values >> np.uint16(7)) & np.uint16(0xFF), minlength=256)
    return entropy(exponents) < 4.2 * len(values)


def _plain(new: Bytes, group: Group) -> _Numbers | None:
    """Say how the group is described as numbers without old ones; None if it does not look so."""
    raw = new[group.start : group.end].tobytes()
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
    if chosen is None:
        return None
    number = BY_NAME[chosen]
    fmt = FORMATS[number]
    even = len(raw) - len(raw) % fmt.width

    def encode() -> bytes:
        body = bytes((number,)) + encode_plain(fmt, elements(raw[:even], fmt.width))
        return _framed(Op.NUMBERS, raw, body + pack(np.frombuffer(raw[even:], np.uint8)))

    return _Numbers(best / 8, encode)


def as_text(old: Bytes, new: Bytes, group: Group) -> bytes:
    """Return the group as a block of zstd with old bytes as dictionary."""
    raw = new[group.start : group.end].tobytes()
    low, dictionary = _around(old, group)
    head = varint(len(dictionary))
    if dictionary:
        head += varint(zigzag(low - group.start))
    return _framed(Op.BYTES, raw, head + compress(raw, dictionary))


def _around(old: Bytes, group: Group) -> tuple[int, bytes]:
    """Return where the old bytes around a group's counterpart begin, and those bytes."""
    place = group.segments[0].old
    middle = group.start if place is None else place
    low = min(max(middle - _REACH, 0), len(old))
    high = min(middle + group.size + _REACH, len(old))
    return low, old[low:high].tobytes() if high > low + 8 else b""
