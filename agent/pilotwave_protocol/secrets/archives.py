"""Look for secrets in a file, and in what it holds where it is an archive: zip, tar, gzip, bz2, xz.

What is packed is read in pieces and never written. An archive that cannot be read ends the look
into it: whether it may be shipped is not decided here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from pilotwave_protocol.secrets.marks import CHUNK, Secret, secret_in
from pilotwave_protocol.secrets.naming import secret_by_name

MOST_MEMBERS = 100_000
MOST_BYTES = 4 << 30
_NESTED = 64 << 20
_DEPTH = 3
_UNREADABLE = (
    zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, gzip.BadGzipFile,
    EOFError, OSError, ValueError, RuntimeError, NotImplementedError, OverflowError,
)  # fmt: skip
_PACKED = ((b"\x1f\x8b\x08", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))


class _Budget:
    def __init__(self) -> None:
        self.bytes, self.members = MOST_BYTES, MOST_MEMBERS

    def pieces(self, stream: IO[bytes]) -> Iterator[bytes]:
        while self.bytes > 0 and (chunk := stream.read(CHUNK)):
            self.bytes -= len(chunk)
            yield chunk


def secret_in_file(path: Path) -> Secret | None:
    """Return the first secret in a file or in what it packs. OSError where it cannot be read."""
    with path.open("rb") as stream:
        found = secret_in(iter(lambda: stream.read(CHUNK), b""))
        return found or _inside(stream, _Budget(), 0)


def _inside(stream: IO[bytes], budget: _Budget, depth: int) -> Secret | None:
    if depth > _DEPTH:
        return None
    try:
        return next(_secrets(stream, budget, depth), None)
    except _UNREADABLE:
        return None


def _secrets(stream: IO[bytes], budget: _Budget, depth: int) -> Iterator[Secret]:
    stream.seek(0)
    head = stream.read(512)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        yield from _in_zip(stream, budget, depth)
    elif head[257:262] == b"ustar":
        yield from _in_tar(stream, budget, depth)
    for magic, opener in _PACKED:
        if head.startswith(magic):
            with opener(stream) as plain:
                yield from _in_member("", cast("IO[bytes]", plain), budget, depth)


def _in_zip(stream: IO[bytes], budget: _Budget, depth: int) -> Iterator[Secret]:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.is_dir() or member.flag_bits & 1:
                yield from _named(member.filename)
                continue
            with archive.open(member) as plain:
                yield from _in_member(member.filename, plain, budget, depth)


def _in_tar(stream: IO[bytes], budget: _Budget, depth: int) -> Iterator[Secret]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            plain = archive.extractfile(member) if member.isreg() else None
            if plain is not None:
                yield from _in_member(member.name, plain, budget, depth)


def _named(name: str) -> Iterator[Secret]:
    if by_name := secret_by_name(name.replace("\\", "/")):
        yield Secret(f"{by_name} in it", certain=False)


def _in_member(name: str, plain: IO[bytes], budget: _Budget, depth: int) -> Iterator[Secret]:
    yield from _named(name)
    budget.members -= 1
    if budget.members < 0:
        return
    kept = io.BytesIO()

    def pieces() -> Iterator[bytes]:
        for chunk in budget.pieces(plain):
            if kept.tell() + len(chunk) <= _NESTED:
                kept.write(chunk)
            yield chunk

    inside = f" in {ascii(name)[1:-1][:80]}" if name else ""
    found = secret_in(pieces()) or _inside(kept, budget, depth + 1)
    if found:
        yield Secret(found.what + inside, found.certain)
