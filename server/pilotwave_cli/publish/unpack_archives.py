"""Store anew what archives hold deflated, so that the next version's delta is small.

Deflate changes every byte behind the first weight that changed. A zip (npz, keras …) gets the same
members without compression, a gzip file the same content in stored blocks: whoever reads the format
reads the same. What is published is the file as it is then, exact by its digest; on the wire zstd
packs it better than deflate did. Nothing is unpacked into files, here or on a device.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pilotwave_cli import output
from pilotwave_cli.errors import CliError

LARGEST = 4 << 30
"""Bytes that an archive may hold in all."""
MOST_MEMBERS = 100_000
_CHUNK = 1 << 20
_ZIP, _GZIP = b"PK\x03\x04", b"\x1f\x8b\x08"
_ENCRYPTED = 1
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, tarfile.TarError)


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


@contextmanager
def restored(sources: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Give each variant's file or folder, its deflated archives stored anew where there are any."""
    with tempfile.TemporaryDirectory(prefix="pilotwave-stored-") as temp:
        found = {}
        for name, source in sources.items():
            found[name] = _restored(source, Path(temp) / name) or source
        yield found


def _restored(source: Path, folder: Path) -> Path | None:
    """Return the new file or folder; None if there is nothing to change."""
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    changed: dict[Path, Path] = {}
    for number, path in enumerate(files):
        target = folder / "new" / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        # a wheel is named by its digest in the list beside it
        if not path.is_symlink() and path.suffix != ".whl" and store_anew(path, target):
            changed[path] = target
            sizes = (output.size(p.stat().st_size) for p in (path, target))
            output.warn(
                f"{path.name}: what it holds deflated is stored plain, for small updates "
                f"({' became '.join(sizes)}; sent packed); --as-is leaves it"
            )
    if not changed:
        return None
    whole = folder / (source.name or "files")
    if source.is_file():
        changed[source].rename(whole)
        return whole
    shutil.copytree(source, whole, symlinks=True, copy_function=_linked)
    for path, target in changed.items():
        copy = whole / path.relative_to(source)
        copy.unlink()
        target.rename(copy)
    return whole


def _linked(source: str, target: str) -> None:
    """Make a hard link, or a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def store_anew(path: Path, target: Path) -> bool:
    """Write an archive's content undeflated; False if the file is none, or has nothing deflated.

    Raises `CliError` for an archive that is damaged, holds more than 4 GiB, or has members whose
    names lead out of it or come twice.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    try:
        if magic == _ZIP:
            return _store_zip(path, target)
        if magic.startswith(_GZIP):
            return _store_gzip(path, target)
    except _UNREADABLE as e:
        raise CliError(f"{path}: expected a whole archive; it cannot be read: {e}") from e
    return False


# --- zip


def _store_zip(path: Path, target: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        methods = {m.compress_type for m in members}
        if zipfile.ZIP_DEFLATED not in methods:
            return False
        if methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            return False  # nobody here can read it
        if any(m.flag_bits & _ENCRYPTED for m in members):
            return False
        _check_members(path, archive, members)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as stored:
            stored.comment = archive.comment
            for member in members:
                _store_member(path, archive, member, stored)
    return True


def _check_members(path: Path, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_MEMBERS:
        raise CliError(f"{path}: expected up to {MOST_MEMBERS} members; it has {len(members)}")
    total = sum(m.file_size for m in members)
    if total > LARGEST:
        raise CliError(f"{path}: expected up to {output.size(LARGEST)} in it; got {total} bytes")
    end = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset < end:
            raise CliError(f"{path}: its members lie over each other, as in a zip bomb")
        end = member.header_offset + member.compress_size
    _check_names(path, [m.filename for m in members])


def _check_names(path: Path, names: list[str]) -> None:
    seen = set()
    for name in names:
        parts = name.replace("\\", "/").rstrip("/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise CliError(f"{path}: the member {output.plain(name)!r:.80} leads out of it")
        if name in seen:
            raise CliError(f"{path}: the member {output.plain(name)!r:.80} comes twice")
        seen.add(name)


def _store_member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, stored: zipfile.ZipFile
) -> None:
    entry = zipfile.ZipInfo(member.filename, member.date_time)
    entry.external_attr, entry.create_system = member.external_attr, member.create_system
    entry.comment, entry.file_size = member.comment, member.file_size
    with archive.open(member) as source, stored.open(entry, "w") as into:
        _copy(path, source, into, member.file_size)  # its checksum is compared at its end


def _copy(path: Path, source: Readable, target: Writable, most: int) -> int:
    copied = 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        if copied > most:
            raise CliError(f"{path}: it holds more than the {most} bytes that it may")
        target.write(chunk)
    return copied


# --- gzip


def _store_gzip(path: Path, target: Path) -> bool:
    with gzip.open(path) as source, target.open("wb") as file:
        options: Any = {"filename": "", "mode": "wb", "compresslevel": 0, "mtime": 0}
        with gzip.GzipFile(fileobj=file, **options) as into:
            size = _copy(path, source, into, LARGEST)
    if path.stat().st_size >= size:
        target.unlink()
        return False  # it is stored already, or does not compress
    with gzip.open(target) as content:
        if content.read(512)[257:262] == b"ustar":
            content.seek(0)
            with tarfile.open(fileobj=content, mode="r:") as archive:
                _check_names(path, [m.name for m in archive if not m.isdir()])
    return True
