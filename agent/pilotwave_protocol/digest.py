"""SHA-256 over bytes and files. Content addresses are 64 small hex digits."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

CHUNK = 1 << 20
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def sha256_hex(data: bytes) -> str:
    """Return the digest of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def hash_stream(stream: BinaryIO) -> tuple[str, int]:
    """Return (sha256, size in bytes) of what is left in `stream`, 1 MiB at a time."""
    hasher = hashlib.sha256()
    size = 0
    while chunk := stream.read(CHUNK):
        hasher.update(chunk)
        size += len(chunk)
    return hasher.hexdigest(), size


def hash_file(path: str | os.PathLike[str]) -> tuple[str, int]:
    """Return (sha256, size in bytes) of a file, 1 MiB at a time."""
    with open(path, "rb") as stream:
        return hash_stream(stream)
