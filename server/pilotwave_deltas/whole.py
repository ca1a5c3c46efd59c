"""The whole file as one zstd frame, alone or upon the old file: best for what is no tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pilotwave_deltas.packing import compress
from pilotwave_protocol.delta import HEADER_BYTES, Header, Mode
from pilotwave_protocol.delta.zstd import MIN_DICTIONARY, zstd

LEVEL = 19
MAX_PATCH = 64 << 20  # bytes of old and new file together
_CHUNK = 1 << 20
_QUICK = 3
_SMALL = 512 << 10  # cheap enough to be tried whatever the odds
_SPOTS, _SPOT, _AROUND = 5, 64 << 10, 256 << 10
_DOUBT = 0.8  # the whole file may gain more by the better level than the spots do
_NO_GAIN, _LITTLE_DOUBT = 0.97, 0.95  # but not where they gain next to nothing
_Parameter = zstd.CompressionParameter


@dataclass(frozen=True)
class Whole:
    """A delta that is one frame."""

    header: Header
    size: int
    path: Path


def whole_file(old: Path, new: Path, header: Header, out: Path, *, limit: int) -> Iterator[Whole]:
    """Yield each delta of one frame that is smaller than `limit` and those before it."""
    sizes = header.old_size + header.new_size
    for mode in (Mode.FRAME, Mode.PATCH):
        if mode is Mode.PATCH and (header.old_size < MIN_DICTIONARY or sizes > MAX_PATCH):
            continue
        if not _worth_trying(old, new, header, mode, limit, out):
            continue
        made = _write(old, new, header, mode, out)
        if made.size < limit:
            limit = made.size
            yield made
    out.unlink(missing_ok=True)


def _worth_trying(old: Path, new: Path, header: Header, mode: Mode, limit: int, out: Path) -> bool:
    """Say whether a quick compression, and what the better level gains at a few spots, promise
    less than `limit`."""
    if header.new_size <= _SMALL:
        return True
    quick = _write(old, new, header, mode, out, level=_QUICK)
    gain = _gain(old, new, header, mode)
    doubt = _DOUBT if gain < _NO_GAIN else _LITTLE_DOUBT
    return quick.size < limit or doubt * gain * quick.size < limit


def _gain(old: Path, new: Path, header: Header, mode: Mode) -> float:
    """Return by which factor the better level shrinks what the quick one makes of some spots.

    With the old file, what lies around the same place counted from its front and from its end
    serves each spot as dictionary.
    """
    better = quick = 1
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
            quick += len(compress(spot, around, _QUICK))
            better += len(compress(spot, around, LEVEL))
    return better / quick


def _write(
    old: Path, new: Path, header: Header, mode: Mode, out: Path, *, level: int = LEVEL
) -> Whole:
    dictionary = old.read_bytes() if mode is Mode.PATCH else b""
    options: dict[int, int] = {_Parameter.compression_level: level, _Parameter.checksum_flag: 0}
    window_log = 23
    if dictionary:
        reach = header.old_size + header.new_size
        window_log = max(reach.bit_length(), 10)
        options[_Parameter.window_log] = window_log
        options[_Parameter.enable_long_distance_matching] = 1
    prefix = zstd.ZstdDict(dictionary, is_raw=True).as_prefix if dictionary else None
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
    compressor.set_pledged_input_size(header.new_size)
    mine = replace(header, mode=mode, block_size=0, window_log=window_log)
    with new.open("rb") as source, out.open("wb") as target:
        target.write(mine.pack())
        while chunk := source.read(_CHUNK):
            target.write(compressor.compress(chunk))
        target.write(compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME))
        size = target.tell()
    assert size >= HEADER_BYTES
    return Whole(mine, size, out)
