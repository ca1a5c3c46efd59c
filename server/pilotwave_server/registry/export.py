"""The repository as files, for devices and for any cache or web server in front.

Files are written after the commit that made them valid, in the order in which a client may come to
need them: manifests, roots, roles, snapshot, and last `timestamp.json`, which makes the rest
visible. What a crash kept from being written is written at the next start.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer
from tuf.api.metadata import Root, Snapshot, Timestamp

from pilotwave_protocol import names
from pilotwave_server.db import Database
from pilotwave_server.errors import Unavailable
from pilotwave_server.registry import documents
from pilotwave_server.registry.tables import TufMetadataRow, VersionRow


class ExportFailed(Unavailable):
    """The change is made, but its files could not be written; they will be, later."""

    code = "export_failed"


def target_file(model: str, version: str, sha256: str) -> str:
    """The path of a manifest below `targets/`, with the digest that consistent snapshots want."""
    folder, _, name = names.target_path(model, version).rpartition("/")
    return f"{folder}/{sha256}.{name}"


class Exporter:
    """Writes `metadata/` and `targets/` below `folder`. Processes may share the folder."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self._db = db
        self._folder = folder
        self._last_version_id = 0
        self._written: set[str] = set()

    def export(self, *, all_files: bool = False) -> None:
        """Bring the files up to what is committed. `all_files` trusts nothing remembered.

        Raises ExportFailed.
        """
        try:
            self.metadata.mkdir(parents=True, exist_ok=True)
            self.targets.mkdir(parents=True, exist_ok=True)
            # Reading below the lock means that no older timestamp can replace a newer one.
            with _locked(self._folder), self._db.read() as session:
                if all_files:
                    self._last_version_id = 0
                    self._written = set()
                self._export_manifests(session)
                self._export_metadata(session)
                if all_files:
                    self._put_unknown_aside(session)
        except OSError as error:
            raise ExportFailed(
                f"the TUF files below {self._folder} cannot be written: {error.strerror}"
            ) from error

    def _export_manifests(self, session: Session) -> None:
        query = select(VersionRow).where(VersionRow.id > self._last_version_id)
        for row in session.scalars(
            query.options(undefer(VersionRow.manifest)).order_by(VersionRow.id)
        ):
            path = self.targets / target_file(row.model, row.version, row.sha256)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_durably(path, row.manifest)
            self._last_version_id = row.id

    def _export_metadata(self, session: Session) -> None:
        roots = session.scalars(
            select(TufMetadataRow.version).where(TufMetadataRow.role == Root.type)
        )
        for version in sorted(roots.all()):
            self._export_version(session, Root.type, version)
        snapshot = documents.load(session, Snapshot.type, Snapshot)
        timestamp = documents.find(session, Timestamp.type)
        if snapshot is None or timestamp is None:
            return
        for name, meta in snapshot.signed.meta.items():
            self._export_version(session, name.removesuffix(".json"), meta.version)
        self._export_version(session, Snapshot.type, snapshot.signed.version)
        path = self.metadata / "timestamp.json"
        if not path.exists() or path.read_bytes() != timestamp.document:
            write_durably(path, timestamp.document)

    def _export_version(self, session: Session, role: str, version: int) -> None:
        name = f"{version}.{role}.json"
        if name in self._written:
            return
        row = documents.find(session, role, version)
        if row is not None:
            path = self.metadata / name
            # a restored database may give a number again that it had given before
            if not path.exists() or path.read_bytes() != row.document:
                write_durably(path, row.document)
            self._written.add(name)

    def _put_unknown_aside(self, session: Session) -> None:
        """Move documents that the database does not hold into `unknown/`: it was restored, and
        whoever asks for the next root must not be given one that this server knows nothing of."""
        rows = session.execute(select(TufMetadataRow.role, TufMetadataRow.version))
        known = {f"{version}.{role}.json" for role, version in rows}
        if known:
            known.add("timestamp.json")
        unknown = self._folder / "unknown"
        for path in self.metadata.glob("*.json"):
            if path.is_file() and path.name not in known:
                unknown.mkdir(exist_ok=True)
                path.replace(unknown / path.name)

    def tidy(self) -> None:
        """Delete the files of documents that were deleted; roots and newer ones stay."""
        with _locked(self._folder), self._db.read() as session:
            newest = documents.newest(session)
            for path in self.metadata.glob("[1-9]*.json"):
                number, _, role = path.name.removesuffix(".json").partition(".")
                valid = newest.get(role)
                old = valid is not None and role != Root.type and int(number) < valid.version
                if old and documents.find(session, role, int(number)) is None:
                    path.unlink(missing_ok=True)
                    self._written.discard(path.name)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file under its final name only when it is wholly on disk."""
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
