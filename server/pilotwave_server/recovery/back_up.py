"""Make a backup of a server that runs: first the database, then the blobs, then the keys, locked.

In this order nothing in the database lacks its bytes: blobs are only ever added, but by `gc` and
purges, and what those took meanwhile is said. The files under `tuf/` are left out: they are
written from the database. Deltas are left out: they are made again.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server import build, migrate
from pilotwave_server.audit.service import head
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.blobs.port import BlobDamaged, BlobMissing, BlobStore
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.db import Database, fleet_row
from pilotwave_server.keystore.database import DatabaseKeys
from pilotwave_server.keystore.port import KeyStore
from pilotwave_server.recovery.ahead import numbers_here
from pilotwave_server.recovery.archive import BackupUnusable, Reader, Writer, new_archive
from pilotwave_server.recovery.copy_database import copy_out
from pilotwave_server.recovery.lock_keys import lock

SCHEMA: Literal["pilotwave/backup/1"] = "pilotwave/backup/1"
CONTENTS, DATABASE, KEYS = "backup.json", "database.sqlite", "keys.json"
VERB, OBJECT = "fleet.backup", "fleet/backup"
MOST_CONTENTS = 64 * 1024 * 1024


class Contents(BaseModel):
    """What a backup says of itself. `left_out`: blobs that the database names and that were gone,
    or damaged, when their turn came. `events` and `head` are those of the audit log. `keys`: locked
    with a passphrase, or in the database as they were, encrypted by the key-encryption key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["pilotwave/backup/1"] = Field(alias="schema")
    fleet: str
    made_at: datetime
    build: str
    migration: str
    revision: int = Field(ge=0)
    tuf: dict[str, int]
    events: int = Field(ge=0)
    head: str
    database_sha256: str = Field(pattern=r"[0-9a-f]{64}")
    counters: dict[str, int]
    blobs: int | None = Field(description="How many; None: left out.")
    blob_bytes: int = Field(ge=0)
    left_out: list[str]
    keys: Literal["locked", "database", "none"]


def blob_member(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def back_up(
    db: Database,
    to: Path,
    *,
    blobs: BlobStore | None,
    keys: KeyStore,
    passphrase: str | None,
    now: datetime,
) -> Contents:
    """Make a backup; None leaves blobs, or keys, out. PlaceTaken, BackupUnusable, SchemaBehind."""
    with new_archive(to) as archive, tempfile.TemporaryDirectory(dir=to.parent) as folder:
        copy = Path(folder) / DATABASE
        with db.read() as session:
            migration = migrate.require_head(session)
        counters = copy_out(db, copy)
        found = _facts(copy)
        found |= {"counters": counters, "database_sha256": _add_file(archive, DATABASE, copy)}
        found |= _add_blobs(archive, copy, blobs)
        if passphrase is not None:
            locked = lock(keys.read(), passphrase)
            archive.add(KEYS, io.BytesIO(locked), len(locked))
        contents = Contents(
            schema=SCHEMA,
            made_at=now,
            build=build(),
            migration=migration,
            keys=_where(keys, passphrase),
            **found,
        )
        # last: a folder without it is no backup
        written = contents.model_dump_json(by_alias=True, indent=1).encode()
        archive.add(CONTENTS, io.BytesIO(written), len(written))
    return contents


def _where(keys: KeyStore, passphrase: str | None) -> Literal["locked", "database", "none"]:
    if passphrase is not None:
        return "locked"
    return "database" if isinstance(keys, DatabaseKeys) else "none"


def last_backup(session: Session) -> datetime | None:
    """When the last backup ended, as the audit log tells."""
    e = AuditEventRow
    query = select(e.at).where(e.object == OBJECT, e.verb == VERB)
    return session.scalar(query.order_by(e.id.desc()).limit(1))


def read_contents(archive: Reader) -> Contents:
    """What a backup says of itself. Raises BackupUnusable."""
    source = archive.open(CONTENTS)
    if source is None:
        raise BackupUnusable(f"there is no {CONTENTS} in it: this is no backup, or not a whole one")
    with source:
        raw = source.read(MOST_CONTENTS)
    try:
        return Contents.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BackupUnusable(f"{CONTENTS}: {where}: {first['msg']}") from None


def _facts(copy: Path) -> dict[str, Any]:
    """What the copy itself says, so that no change since can come between."""
    db = Database(f"sqlite:///{copy}")
    try:
        with db.read() as session:
            here, (sha256, events) = numbers_here(session), head(session)
            tuf = {"root": here.root, "timestamp": here.timestamp, "snapshot": here.snapshot}
            found = {"fleet": fleet_row(session).fleet, "revision": here.seq, "tuf": tuf}
            return found | {"events": events, "head": sha256}
    finally:
        db.close()


def wanted_blobs(copy: Path) -> list[tuple[str, int]]:
    """The blobs that a copied database says are there, with their sizes."""
    db = Database(f"sqlite:///{copy}")
    try:
        with db.read() as session:
            query = select(BlobRow.sha256, BlobRow.size).where(BlobRow.removed_at.is_(None))
            return list(session.execute(query.order_by(BlobRow.sha256)).tuples())
    finally:
        db.close()


def _add_blobs(archive: Writer, copy: Path, store: BlobStore | None) -> dict[str, Any]:
    left_out: list[str] = []
    count = size = 0
    for sha256, length in wanted_blobs(copy) if store is not None else ():
        if store is not None and _add_blob(archive, store, sha256, length):
            count, size = count + 1, size + length
        else:
            left_out.append(sha256)
    return {
        "blobs": None if store is None else count,
        "blob_bytes": size,
        "left_out": left_out,
    }


def _add_blob(archive: Writer, store: BlobStore, sha256: str, length: int) -> bool:
    """Add one blob, and say whether it was there, undamaged. Damaged bytes are added too; a restore
    leaves them out, since it looks at each digest."""
    if store.size(sha256) != length:
        return False
    try:
        with store.local(sha256) as path:
            return _add_file(archive, blob_member(sha256), path) == sha256
    except (BlobMissing, BlobDamaged):
        return False


class Hashing:
    """A stream whose bytes are hashed as they are read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self._hash = source, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(size)
        self._hash.update(piece)
        return piece

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _add_file(archive: Writer, name: str, path: Path) -> str:
    with path.open("rb") as source:
        hashing = Hashing(source)
        archive.add(name, hashing, os.fstat(source.fileno()).st_size)  # type: ignore[arg-type]  # it is only read
        return hashing.hexdigest()
