"""Apply a delta: the new file is written front to back, and proved by its SHA-256 at the end.

Memory is bounded by what the header declares, whatever the files' sizes. Work that a cut left half
done goes on at the first block that is not on disk whole: each block's checksum says which are.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import BinaryIO

from pilotwave_protocol.delta import blocks
from pilotwave_protocol.delta.blocks import Block, Old, Op
from pilotwave_protocol.delta.header import HEADER_BYTES, Header, Mode
from pilotwave_protocol.delta.zstd import inflate_pieces
from pilotwave_protocol.errors import BadDelta

_CHUNK = 1 << 16
_MAX_VARINT = 9
DEFAULT_MEMORY = 128 << 20


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """Read `count` bytes; fewer are a `BadDelta`."""
    parts = []
    left = count
    while left:
        part = stream.read(left)
        if not part:
            raise BadDelta(f"the delta ends {left} bytes early")
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass
class Applier:
    """One delta, from a stream, upon an old file that can seek.

    `write` takes the new file's bytes in order. `kept`, if given, is what an earlier try has
    written: whole blocks of it are taken over and not written again; `truncate` is then called
    with the size up to which they are good, before the first write.
    """

    delta: BinaryIO
    old: BinaryIO
    write: Callable[[bytes], object]
    max_memory: int = DEFAULT_MEMORY
    math: ModuleType = field(default_factory=blocks.arithmetic)
    kept: BinaryIO | None = None
    truncate: Callable[[int], object] = lambda size: None
    resumed: int = 0
    _hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    _at: int = 0

    def run(self) -> Header:
        """Apply the whole delta; return its header.

        Raises `BadDelta` on anything wrong with the delta or the old file, and `OSError` from the
        files. What was written then is worth nothing, unless the error came from a file.
        """
        header = Header.parse(read_exactly(self.delta, HEADER_BYTES))
        self.check(header)
        source = Old(header.old_size, self._read_old)
        if header.mode is Mode.BLOCKS:
            self._blocks(header, source)
        else:
            self._frame(header)
        if self._at != header.new_size or self._hasher.hexdigest() != header.new_sha256:
            raise BadDelta("the result is not the file that the delta promised")
        return header

    def check(self, header: Header) -> None:
        """Check what applying would cost, and that the old file has the right size."""
        if header.memory > self.max_memory:
            sentence = f"the delta needs {header.memory} bytes of memory, over {self.max_memory}"
            raise BadDelta(sentence)
        size = self.old.seek(0, 2)
        if size != header.old_size:
            raise BadDelta(f"the delta is for an old file of {header.old_size} bytes, not {size}")

    def _read_old(self, start: int, size: int) -> bytes:
        self.old.seek(start)
        return read_exactly(self.old, size)

    # --- blocks

    def _blocks(self, header: Header, source: Old) -> None:
        resuming = self.kept is not None
        while self._at < header.new_size:
            block = self._next_block(header)
            if resuming:
                resuming = self._take_over(block)
                if resuming:
                    continue
                self.truncate(self._at)
            self._carry_out(block, source)
        if resuming:
            self.truncate(self._at)
        if self.delta.read(1):
            raise BadDelta("bytes follow the delta's last block")

    def _next_block(self, header: Header) -> Block:
        op = read_exactly(self.delta, 1)[0]
        if op not in tuple(Op):
            raise BadDelta(f"expected an operation of 1 to 3; got {op}")
        left = header.new_size - self._at
        limit = left if op == Op.COPY else min(left, header.block_size)
        size = self._number(limit)
        if size == 0:
            raise BadDelta("a block makes no bytes")
        body_size = self._number(2 * header.block_size + _CHUNK)
        crc = int.from_bytes(read_exactly(self.delta, 4), "little")
        return Block(Op(op), self._at, size, crc, read_exactly(self.delta, body_size))

    def _number(self, highest: int) -> int:
        value = 0
        for i in range(_MAX_VARINT):
            byte = read_exactly(self.delta, 1)[0]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                break
        if value > highest:
            raise BadDelta(f"expected a number up to {highest}; got {value}")
        return value

    def _take_over(self, block: Block) -> bool:
        """Say whether an earlier try has this block on disk whole; if so, count it as done."""
        hasher, crc, left = self._hasher.copy(), 0, block.size
        while left:
            chunk = self.kept.read(min(left, _CHUNK)) if self.kept else b""
            if not chunk:
                return False
            hasher.update(chunk)
            crc = zlib.crc32(chunk, crc)
            left -= len(chunk)
        if crc != block.crc:
            return False
        self._hasher = hasher
        self._at += block.size
        self.resumed = self._at
        return True

    def _carry_out(self, block: Block, source: Old) -> None:
        crc = 0
        for piece in self._pieces(block, source):
            crc = zlib.crc32(piece, crc)
            self._hasher.update(piece)
            self.write(piece)
        if crc != block.crc:
            raise BadDelta(f"the block at {block.at} came out wrong: its checksum differs")
        self._at += block.size

    def _pieces(self, block: Block, source: Old) -> Iterator[bytes]:
        if block.op is not Op.COPY:
            yield blocks.build(block, source, self.math)
            return
        start, size = blocks.copy_span(block, source)
        for at in range(start, start + size, _CHUNK):
            yield source.read(at, min(_CHUNK, start + size - at))

    # --- one frame

    def _frame(self, header: Header) -> None:
        dictionary = self._read_old(0, header.old_size) if header.mode is Mode.PATCH else b""
        chunks = iter(lambda: self.delta.read(_CHUNK), b"")
        if self.kept is not None:
            self.truncate(0)
        for piece in inflate_pieces(chunks, header.new_size, dictionary, header.window_log):
            self._hasher.update(piece)
            self.write(piece)
            self._at += len(piece)


def apply_delta(delta: BinaryIO, old: BinaryIO, write: Callable[[bytes], object]) -> Header:
    """Apply a delta from one stream upon another; the result is proved when this returns."""
    return Applier(delta, old, write).run()
