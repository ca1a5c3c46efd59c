"""A backup's place: a folder, or one tar file. Members are written once and read by name.

What has the final name is whole and on disk: until then it lies beside it under another one. Which
members there are is `back_up.py`'s to say.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from pilotwave_server.blobs.upload import fsync_folder
from pilotwave_server.errors import SetupError

TAR = ".tar"
PIECE = 1024 * 1024


class PlaceTaken(SetupError):
    """Nothing is ever overwritten, neither by a backup nor by a restore."""

    code = "place_taken"


class BackupUnusable(SetupError):
    code = "backup_unusable"


class Writer(Protocol):
    """A backup that is being made."""

    def add(self, name: str, source: BinaryIO, size: int) -> None:
        """Add a member of `size` bytes. Raises OSError where the source has fewer."""
        ...


class Reader(Protocol):
    """A backup that is there."""

    def open(self, name: str) -> BinaryIO | None:
        """A member from its beginning, None where there is none of that name."""
        ...


@contextmanager
def new_archive(to: Path) -> Iterator[Writer]:
    """Make a backup at `to`, a folder unless its name ends with `.tar`; it is there when the block
    ended well, and nothing is when it did not. Raises PlaceTaken, BackupUnusable."""
    if os.path.lexists(to):
        raise PlaceTaken(f"{to} is there already: name a place that is not, as {to}-2")
    try:
        if not to.parent.is_dir():
            raise BackupUnusable(f"{to.parent}: expected a folder that is there")
        with _new_tar(to) if to.suffix == TAR else _new_folder(to) as writer:
            yield writer
    except OSError as error:
        raise BackupUnusable(f"the backup {to} cannot be written: {error}") from error


@contextmanager
def _new_folder(to: Path) -> Iterator[Writer]:
    made = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}-"))
    try:
        yield _FolderWriter(made)
        for folder, _, _ in os.walk(made):
            fsync_folder(Path(folder))
        made.rename(to)
        fsync_folder(to.parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


class _FolderWriter:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, source: BinaryIO, size: int) -> None:
        path = self._folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("xb") as out:
            shutil.copyfileobj(source, out, PIECE)
            if out.tell() != size:
                raise OSError(f"{name}: expected {size} bytes; got {out.tell()}")
            out.flush()
            os.fsync(out.fileno())


@contextmanager
def _new_tar(to: Path) -> Iterator[Writer]:
    descriptor, name = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}-")
    made = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield _TarWriter(tar)
            out.flush()
            os.fsync(out.fileno())
        # a link, unlike a renaming, never takes another file's place
        to.hardlink_to(made)
        fsync_folder(to.parent)
    finally:
        made.unlink(missing_ok=True)


class _TarWriter:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def add(self, name: str, source: BinaryIO, size: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o600
        self._tar.addfile(entry, source)


@contextmanager
def open_archive(place: Path) -> Iterator[Reader]:
    """Read a backup. Raises BackupUnusable."""
    if place.is_dir():
        yield _FolderReader(place)
        return
    try:
        with tarfile.open(place, "r:") as tar:
            yield _TarReader(tar)
    except (OSError, tarfile.TarError) as error:
        raise BackupUnusable(f"the backup {place} cannot be read: {error}") from error


class _FolderReader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str) -> BinaryIO | None:
        path = self._folder / name
        return path.open("rb") if path.is_file() else None


class _TarReader:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._members = {entry.name: entry for entry in tar if entry.isreg()}
        self._extract: Callable[[tarfile.TarInfo], object] = tar.extractfile

    def open(self, name: str) -> BinaryIO | None:
        entry = self._members.get(name)
        return None if entry is None else self._extract(entry)  # type: ignore[return-value]  # a regular file's is one
