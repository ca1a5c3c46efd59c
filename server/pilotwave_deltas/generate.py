"""Make the smallest delta that the format can say, and prove it by applying it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pilotwave_deltas import align, blocks
from pilotwave_deltas.segments import Segment
from pilotwave_deltas.whole import whole_file
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
    with mapped(old) as a, mapped(new) as b, out.open("wb") as stream:
        size = write_blocks(a, b, header, align.align(a, b), stream)
    for other in whole_file(old, new, header, out.with_name(out.name + ".whole"), limit=size):
        os.replace(other.path, out)
        header, size = other.header, other.size
    return Made(header, size)


def _header(old: Path, new: Path) -> Header:
    digests = []
    for path in (old, new):
        with path.open("rb") as stream:
            digests.append(hash_stream(stream))
    (old_sha256, old_size), (new_sha256, new_size) = digests
    return Header(Mode.BLOCKS, old_sha256, old_size, new_sha256, new_size, blocks.BLOCK)


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
    old: Bytes, new: Bytes, header: Header, segments: list[Segment], stream: BinaryIO
) -> int:
    """Write header and blocks; return their size."""
    stream.write(header.pack())
    for group in blocks.grouped(blocks.with_copies(old, new, segments)):
        stream.write(blocks.encode(old, new, group))
    return stream.tell()
