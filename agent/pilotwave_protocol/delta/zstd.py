"""Zstandard, from the standard library (Python 3.14) or its backport; and reading it bounded."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

from pilotwave_protocol.errors import BadDelta

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["MIN_DICTIONARY", "inflate", "inflate_pieces", "zstd"]

MIN_DICTIONARY = 8  # bytes: zstd takes no shorter ones

# One frame, no larger window than this: 1 MiB blocks never need more.
BLOCK_WINDOW_LOG = 21
_WINDOW = zstd.DecompressionParameter.window_log_max
_FEED = 1 << 16


def _decoder(dictionary: bytes, window_log: int) -> Any:
    if not dictionary:
        return zstd.ZstdDecompressor(None, {_WINDOW: window_log})
    if len(dictionary) < MIN_DICTIONARY:
        raise BadDelta(f"expected a dictionary of {MIN_DICTIONARY} bytes; got {len(dictionary)}")
    prefix = zstd.ZstdDict(dictionary, is_raw=True).as_prefix
    return zstd.ZstdDecompressor(prefix, {_WINDOW: window_log})


def inflate(data: bytes | memoryview, size: int, dictionary: bytes = b"") -> bytes:
    """Return the `size` bytes that a whole zstd frame holds, never more than that.

    `dictionary` is the raw content that the frame refers to.
    """
    decoder = _decoder(dictionary, BLOCK_WINDOW_LOG)
    try:
        found = decoder.decompress(data, max_length=size)
        # an empty answer may only mean that the frame's end was not read yet
        if not decoder.eof and decoder.decompress(b"", max_length=1):
            raise BadDelta(f"a zstd frame holds more than the {size} bytes expected")
    except zstd.ZstdError as e:
        raise BadDelta(f"a zstd frame cannot be read: {e}") from e
    if len(found) != size or not decoder.eof or decoder.unused_data:
        raise BadDelta(f"expected a zstd frame of {size} bytes; got one of {len(found)} or more")
    return bytes(found)


def inflate_pieces(
    chunks: Iterator[bytes], size: int, dictionary: bytes, window_log: int
) -> Iterator[bytes]:
    """Yield the `size` bytes of one frame that comes in chunks, in small pieces."""
    decoder = _decoder(dictionary, window_log)
    left = size
    try:
        first = next(chunks, b"")
        # the size that a frame declares bounds what its decoder allocates
        if zstd.get_frame_info(first).decompressed_size != size:
            raise BadDelta(f"expected a zstd frame that declares {size} bytes")
        for chunk in itertools.chain((first,), chunks):
            data = chunk
            while not decoder.eof:
                piece = decoder.decompress(data, max_length=min(_FEED, left + 1))
                data = b""
                if len(piece) > left:
                    raise BadDelta(f"the zstd frame holds more than the {size} bytes declared")
                left -= len(piece)
                if piece:
                    yield piece
                elif decoder.needs_input:
                    break
            if decoder.eof and (decoder.unused_data or next(chunks, b"")):
                raise BadDelta("bytes follow the zstd frame")
    except zstd.ZstdError as e:
        raise BadDelta(f"the zstd frame cannot be read: {e}") from e
    if left or not decoder.eof:
        raise BadDelta(f"the zstd frame ends {left} bytes before the {size} declared")
