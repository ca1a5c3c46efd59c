"""A delta's first 100 bytes: which file it makes of which, and what it takes to apply it."""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass

from pilotwave_protocol.errors import BadDelta

MAGIC = b"PWDELTA\x01"
_FIELDS = struct.Struct("<8sBBHIQQ32s32s")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size

MAX_FILE = 1 << 42
MIN_BLOCK, MAX_BLOCK = 1 << 10, 1 << 20
MIN_WINDOW_LOG, MAX_WINDOW_LOG = 10, 31
_OVERHEAD = 1 << 20


class Mode(enum.IntEnum):
    """What follows the header."""

    BLOCKS = 0  # blocks, each with its operation
    FRAME = 1  # one zstd frame: the whole new file
    PATCH = 2  # one zstd frame whose raw-content dictionary is the whole old file


@dataclass(frozen=True)
class Header:
    """Sizes are in bytes, digests 64 hex digits; `block_size` is 0 unless the mode is BLOCKS."""

    mode: Mode
    old_sha256: str
    old_size: int
    new_sha256: str
    new_size: int
    block_size: int = 0
    window_log: int = 0

    @property
    def memory(self) -> int:
        """About how many bytes applying takes, above what the program takes anyway."""
        if self.mode is Mode.BLOCKS:
            return 16 * self.block_size + _OVERHEAD
        window = min(1 << self.window_log, max(self.new_size, 1 << MIN_WINDOW_LOG))
        return window + _OVERHEAD + (2 * self.old_size if self.mode is Mode.PATCH else 0)

    def pack(self) -> bytes:
        """Return the header's bytes."""
        raw = _FIELDS.pack(
            MAGIC,
            self.mode,
            self.window_log,
            0,
            self.block_size,
            self.old_size,
            self.new_size,
            bytes.fromhex(self.old_sha256),
            bytes.fromhex(self.new_sha256),
        )
        return raw + _CRC.pack(zlib.crc32(raw))

    @classmethod
    def parse(cls, raw: bytes) -> Header:
        """Read a header; raise `BadDelta` on anything out of its bounds."""
        if len(raw) != HEADER_BYTES or raw[:7] != MAGIC[:7]:
            raise BadDelta(f"expected a delta's header of {HEADER_BYTES} bytes; got something else")
        if raw[7] != MAGIC[7]:
            raise BadDelta(f"expected delta format {MAGIC[7]}; got {raw[7]}")
        if _CRC.unpack(raw[_FIELDS.size :])[0] != zlib.crc32(raw[: _FIELDS.size]):
            raise BadDelta("the delta's header is damaged: its checksum differs")
        fields = _FIELDS.unpack(raw[: _FIELDS.size])
        _, mode, window_log, zero, block, old_size, new_size, old, new = fields
        if mode not in tuple(Mode) or zero:
            raise BadDelta(f"expected a mode of 0 to 2 and zeros after it; got {mode} and {zero}")
        if old_size > MAX_FILE or new_size > MAX_FILE:
            raise BadDelta(f"a file of the delta is larger than {MAX_FILE} bytes")
        if mode == Mode.BLOCKS:
            bounded = MIN_BLOCK <= block <= MAX_BLOCK and window_log == 0
        else:
            bounded = block == 0 and MIN_WINDOW_LOG <= window_log <= MAX_WINDOW_LOG
        if not bounded:
            raise BadDelta(f"a block of {block} bytes or a window of 2^{window_log} is not allowed")
        return cls(Mode(mode), old.hex(), old_size, new.hex(), new_size, block, window_log)
