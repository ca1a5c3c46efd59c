"""The whole file as one zstd frame, alone or upon the old file: best for what is no tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pilotwave_deltas.packing import compress
from pilotwave_protocol.delta import HEADER_BYTES, Header, Mode
from pilotwave_protocol.delta.apply import DEFAULT_MEMORY
from pilotwave_protocol.delta.header import MIN_WINDOW_LOG
from pilotwave_protocol.delta.zstd import MIN_DICTIONARY, zstd

LEVEL = 19
_FAIR = 12  # a level that comes near it in a tenth of the time
_CHUNK = 1 << 20
_SMALL = 512 << 10  # cheap enough to be tried whatever the odds
_SPOTS, _SPOT, _AROUND = 5, 64 << 10, 256 << 10
_NO_GAIN = 0.97
# What the better level leaves of a whole file, at least, of what the spots promise: files of text,
# pickles and made-up noise came down to 0.52, those of weights hardly at all.
_DOUBT, _LITTLE_DOUBT, _NOISE_DOUBT = 0.5, 0.8, 0.95
_Parameter = zstd.CompressionParameter


@dataclass(frozen=True)
class Whole:
    """A delta that is one frame."""

    header: Header
    size: int
    path: Path


@dataclass(frozen=True)
class Guess:
    """What one frame would take: about `fair` bytes, and hardly less than `least`."""

    mode: Mode
    fair: int
    least: float


def guesses(old: Path, new: Path, header: Header, out: Path) -> list[Guess]:
    """Compress at a fair level in each way that a device can apply; the most hopeful comes first.

    Small files are not judged: of them `least` is 0.
    """
    found = []
    for mode in (Mode.FRAME, Mode.PATCH):
        if mode is Mode.PATCH and not _can_patch(header):
            continue
        fair, least = _write(old, new, header, mode, out, level=_FAIR).size, 0.0
        if header.new_size > _SMALL:
            least = fair * _doubt(_gain(old, new, header, mode), fair / header.new_size)
        found.append(Guess(mode, fair, least))
    out.unlink(missing_ok=True)
    return sorted(found, key=lambda guess: guess.fair)


def whole_file(
    old: Path, new: Path, header: Header, out: Path, hopes: list[Guess], *, limit: float
) -> Iterator[Whole]:
    """Yield each delta of one frame that is smaller than `limit` bytes and those before it."""
    for hope in hopes:
        if hope.least < limit:
            made = _write(old, new, header, hope.mode, out)
            if made.size < limit:
                limit = made.size
                yield made
    out.unlink(missing_ok=True)


def _can_patch(header: Header) -> bool:
    if header.old_size < MIN_DICTIONARY:
        return False
    return _headed(header, Mode.PATCH).memory <= DEFAULT_MEMORY


def _doubt(gain: float, share: float) -> float:
    """Say how much less than at the fair level may be left: by the gain at some spots, and by the
    share of the file that is left at the fair level."""
    if gain < _NO_GAIN:
        return _DOUBT
    return _LITTLE_DOUBT if share < 0.5 else _NOISE_DOUBT


def _headed(header: Header, mode: Mode) -> Header:
    reach = header.old_size + header.new_size
    window_log = 23 if mode is Mode.FRAME else max(reach.bit_length(), MIN_WINDOW_LOG)
    return replace(header, mode=mode, block_size=0, window_log=window_log)


def _gain(old: Path, new: Path, header: Header, mode: Mode) -> float:
    """Return by which factor the better level shrinks what the fair one makes of some spots.

    With the old file, what lies around the same place counted from its front and from its end
    serves each spot as dictionary.
    """
    better = fair = 1
    size = min(_SPOT, header.new_size // (8 * _SPOTS))
    with old.open("rb") as before, new.open("rb") as after:
        for i in range(_SPOTS):
            at = (header.new_size - size) * i // (_SPOTS - 1)
            after.seek(at)
            spot, around = after.read(size), b""
            if mode is Mode.PATCH:
                for middle in {at, at + header.old_size - header.new_size}:
                    before.seek(max(middle - _AROUND // 2, 0))
                    around += before.read(_AROUND)
            around = around if len(around) >= MIN_DICTIONARY else b""
            fair += len(compress(spot, around, _FAIR))
            better += len(compress(spot, around, LEVEL))
    return better / fair


def _write(
    old: Path, new: Path, header: Header, mode: Mode, out: Path, *, level: int = LEVEL
) -> Whole:
    mine = _headed(header, mode)
    options: dict[int, int] = {_Parameter.compression_level: level, _Parameter.checksum_flag: 0}
    prefix = None
    if mode is Mode.PATCH:
        options[_Parameter.window_log] = mine.window_log
        options[_Parameter.enable_long_distance_matching] = 1
        prefix = zstd.ZstdDict(old.read_bytes(), is_raw=True).as_prefix
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
    compressor.set_pledged_input_size(header.new_size)
    with new.open("rb") as source, out.open("wb") as target:
        target.write(mine.pack())
        while chunk := source.read(_CHUNK):
            target.write(compressor.compress(chunk))
        target.write(compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME))
        size = target.tell()
    assert size >= HEADER_BYTES
    return Whole(mine, size, out)
