"""Make the smallest delta that the format can say."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pilotwave_deltas.align import align
from pilotwave_deltas.blocks import BLOCK, Text, as_text, encode, grouped, with_copies
from pilotwave_deltas.tensors import find_all
from pilotwave_deltas.whole import guesses, whole_file
from pilotwave_protocol.delta import Header, Mode
from pilotwave_protocol.delta.arrays import Bytes
from pilotwave_protocol.digest import hash_stream


@dataclass(frozen=True)
class Made:
    """A delta that was written: its header and its size in bytes."""

    header: Header
    size: int


def generate(old: Path, new: Path, out: Path) -> Made:
    """Write the delta from one file to another."""
    header = _header(old, new)
    spare = out.with_name(out.name + ".part")
    hopes = guesses(old, new, header, spare)
    with mapped(old) as a, mapped(new) as b:
        size = write_blocks(a, b, header, out, spare, limit=min(hope.fair for hope in hopes))
    for other in whole_file(old, new, header, spare, hopes, limit=size or math.inf):
        os.replace(other.path, out)
        header, size = other.header, other.size
    assert size is not None
    return Made(header, size)


def _header(old: Path, new: Path) -> Header:
    digests = []
    for path in (old, new):
        with path.open("rb") as stream:
            digests.append(hash_stream(stream))
    (old_sha256, old_size), (new_sha256, new_size) = digests
    return Header(Mode.BLOCKS, old_sha256, old_size, new_sha256, new_size, BLOCK)


@contextmanager
def mapped(path: Path) -> Iterator[Bytes]:
    """Give a file's bytes without reading it into memory."""
    if path.stat().st_size == 0:
        yield np.zeros(0, np.uint8)
        return
    with path.open("rb") as stream:
        view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        yield np.frombuffer(view, np.uint8)


def write_blocks(
    old: Bytes, new: Bytes, header: Header, out: Path, spare: Path, *, limit: int
) -> int | None:
    """Write header and blocks; return their size.

    Numbers come first, and what is text is packed only where that may pay: None, and nothing
    written, if there is text and the blocks come to more than `limit` bytes without its packing.
    """
    known = find_all(new)
    texts: list[tuple[int, Text]] = []  # and where they belong among the numbers' blocks
    with spare.open("w+b") as numbers, out.open("wb") as stream:
        for group in grouped(with_copies(old, new, align(old, new))):
            block = encode(old, new, group, known)
            if isinstance(block, Text):
                texts.append((numbers.tell(), block))
            else:
                numbers.write(block)
        if texts and numbers.tell() + sum(text.guess for _, text in texts) > limit:
            return None
        stream.write(header.pack())
        size = numbers.tell()
        numbers.seek(0)
        for at, text in texts:
            _copy(numbers, stream, at - numbers.tell())
            stream.write(as_text(old, new, text.group))
        _copy(numbers, stream, size - numbers.tell())
        return stream.tell()


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size > 0:
        piece = source.read(min(size, 1 << 20))
        target.write(piece)
        size -= len(piece)
