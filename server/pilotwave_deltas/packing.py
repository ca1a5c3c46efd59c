"""Pack byte strings in the smallest of the format's codings."""

from __future__ import annotations

import lzma
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pilotwave_protocol.delta.streams import BITS, LZMA_FILTERS, SKIP, Coding
from pilotwave_protocol.delta.wire import varint
from pilotwave_protocol.delta.zstd import zstd

Bytes = NDArray[np.uint8]
_NOISE_BITS = 7.97  # of 8: nothing to be had
_SHORT = 48
_MOST = 0.75  # of the values are small: several of them may go in a byte
_MANY, _NEARLY_ALL = 0.8, 0.97  # of the bytes are zero: the others may go with their distances
_LEVEL, _QUICK = 19, 3
_LZMA = [LZMA_FILTERS[0] | {"mode": lzma.MODE_NORMAL, "mf": lzma.MF_BT4, "nice_len": 273}]
_REPEATS = 0.97  # of the entropy: below that there are matches, and better ones may be found
_SHORT_ENOUGH = 4096
_WORTH = 0.95  # LZMA takes a device ten times as long as zstd


def entropy(counts: NDArray[Any]) -> float:
    """Return the bits that all symbols of a histogram take at order 0."""
    found = counts[counts > 0].astype(np.float64)
    total = found.sum()
    return float(total * np.log2(total) - (found * np.log2(found)).sum()) if total else 0.0


def compress(data: bytes, dictionary: bytes = b"", level: int = _LEVEL) -> bytes:
    """Return one zstd frame, with a stretch of raw content as dictionary if given."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: 0,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    if dictionary:
        # the window reaches back over the dictionary too
        reach = max((len(data) + len(dictionary) - 1).bit_length(), 10)
        options[zstd.CompressionParameter.window_log] = min(reach, 21)
    prefix = zstd.ZstdDict(dictionary, is_raw=True).as_prefix if dictionary else None
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
    compressor.set_pledged_input_size(len(data))
    return bytes(compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME))


def pack_simple(data: Bytes) -> bytes:
    """Return coding, stored length and stored bytes, by the smallest of four codings."""
    if not data.any():
        return bytes((Coding.ZERO,))
    raw = data.tobytes()
    best = bytes((Coding.RAW,)) + raw
    bits = entropy(np.bincount(data, minlength=256))
    if len(data) >= 4 * _SHORT and bits >= _NOISE_BITS * len(data):
        return best
    packed = compress(raw, level=_QUICK)
    if len(raw) < _SHORT_ENOUGH or len(packed) < _REPEATS * bits / 8:
        packed = min(packed, compress(raw), key=len)
    best = _shorter(best, _headed(Coding.ZSTD, packed))
    other = _headed(Coding.LZMA, lzma.compress(raw, lzma.FORMAT_RAW, filters=cast(Any, _LZMA)))
    worth = 1.0 if len(raw) < _SHORT_ENOUGH else _WORTH
    return other if len(other) < worth * len(best) else best


def _headed(coding: Coding, packed: bytes) -> bytes:
    return bytes((coding,)) + varint(len(packed)) + packed


def pack(data: Bytes) -> bytes:
    """Return a stream by the smallest of all codings; which one is judged by a quick packing."""
    zeros = len(data) - int(np.count_nonzero(data))
    if len(data) <= _SHORT or zeros == len(data):
        return pack_simple(data)
    if zeros > _NEARLY_ALL * len(data):
        return _sparse(data)
    coding = Coding.RAW
    parts: tuple[Bytes, ...] = (data,)
    best = _quick_size(data)
    for narrow, bits in BITS.items():
        if int(np.count_nonzero(data < (1 << bits) - 1)) > _MOST * len(data):
            found = _narrowed(data, bits)
            size = sum(_quick_size(part) for part in found)
            if size < best:
                best, coding, parts = size, narrow, found
    head = b"" if coding is Coding.RAW else bytes((coding,))
    packed = head + b"".join(pack_simple(part) for part in parts)
    return min(packed, _sparse(data), key=len) if zeros > _MANY * len(data) else packed


def _quick_size(data: Bytes) -> int:
    return len(compress(data.tobytes(), level=_QUICK))


def _shorter(a: bytes, b: bytes) -> bytes:
    return b if not a or len(b) < len(a) else a


def _narrowed(data: Bytes, bits: int) -> tuple[Bytes, ...]:
    """Return small values of a few bits each, several a byte, and those that have no room there."""
    each, escape = 8 // bits, np.uint8((1 << bits) - 1)
    small = np.append(np.minimum(data, escape), np.zeros(-len(data) % each, np.uint8))
    packed = np.zeros(len(small) // each, np.uint8)
    for k in range(each):
        packed |= small[k::each] << np.uint8(8 - bits * (k + 1))
    return packed, data[data >= escape]


def _sparse(data: Bytes) -> bytes:
    places = np.flatnonzero(data)
    gaps = np.diff(places, prepend=-1) - 1
    skips = gaps // SKIP
    out = np.full(len(gaps) + int(skips.sum()), SKIP, np.uint8)
    out[np.cumsum(skips + 1) - 1] = gaps % SKIP
    head = bytes((Coding.SPARSE,)) + varint(len(places)) + varint(len(out))
    return head + pack_simple(out) + pack_simple(data[places])
