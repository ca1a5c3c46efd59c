"""Keys as files, each its owner's alone. The processes of one host share the folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from pilotwave_protocol.errors import SigningError
from pilotwave_protocol.signing import read_key_file, write_secret
from pilotwave_server.keystore.port import NAME, KeysUnusable


class FolderKeys:
    """The keys in `folder`, which is made when the first one is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def where(self) -> str:
        return str(self.folder)

    def read(self, beginning: str = "", session: Session | None = None) -> dict[str, bytes]:
        try:
            names = sorted(path.name for path in self.folder.iterdir())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise KeysUnusable(
                f"the server's keys in {self.folder} cannot be read: {error.strerror}"
            ) from error
        named = [name for name in names if name.startswith(beginning) and NAME.fullmatch(name)]
        try:
            return {name: read_key_file(self.folder / name) for name in named}
        except SigningError as error:
            raise KeysUnusable(f"a key of this server cannot be used: {error}") from error

    def add(self, name: str, data: bytes, session: Session | None = None) -> bool:
        with self._written(data) as new:
            try:
                os.link(new, self.folder / name)  # unlike a rename, it never replaces
            except FileExistsError:
                return False
        return True

    def replace(self, name: str, data: bytes, session: Session | None = None) -> None:
        with self._written(data) as new:
            new.replace(self.folder / name)

    def remove(self, name: str, session: Session | None = None) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A file that is wholly on disk, so that a crash leaves no half a key under a key's
        name."""
        new = self.folder / f".{secrets.token_hex(8)}.new"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secret(new, data)
            try:
                yield new
            finally:
                new.unlink(missing_ok=True)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except (SigningError, OSError) as error:
            said = getattr(error, "strerror", None) or error
            raise KeysUnusable(
                f"the folder {self.folder} for the server's keys cannot be written: {said}"
            ) from error
