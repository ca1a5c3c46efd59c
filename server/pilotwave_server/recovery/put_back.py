"""Put a backup back where nothing is. What the fleet has done since is `lost.py`'s to tell.

The database comes last: a restore that was cut short leaves a folder with which no server starts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pilotwave_server import audit
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.blobs.port import BlobStore, DigestMismatch
from pilotwave_server.db import Database
from pilotwave_server.keystore.port import KeyStore
from pilotwave_server.recovery.archive import PIECE, BackupUnusable, PlaceTaken, Reader
from pilotwave_server.recovery.back_up import (
    DATABASE,
    KEYS,
    OBJECT,
    Contents,
    Hashing,
    blob_member,
    read_contents,
    wanted_blobs,
)
from pilotwave_server.recovery.copy_database import bring_up, copy_in, require_empty
from pilotwave_server.recovery.lock_keys import MOST_BYTES, unlock
from pilotwave_server.schema import metadata

VERB = "fleet.restore"
KEYS_FOLDER = "keys"


@dataclass(frozen=True)
class Place:
    """Where a server is to be: what its settings say. `blobs` opens the store, which makes its
    folder; `keys` the place of keys, which may be the database that both are given."""

    data_dir: Path
    database_url: str
    blobs: Callable[[Database], BlobStore]
    keys: Callable[[Database], KeyStore]


@dataclass(frozen=True)
class PutBack:
    """What was put back; `missing` are blobs that the database names and the backup lacks."""

    contents: Contents
    missing: tuple[str, ...]


def put_back(archive: Reader, place: Place, *, passphrase: str | None, now: datetime) -> PutBack:
    """Put keys, blobs and database in place. PlaceTaken, BackupUnusable, SchemaUnknown."""
    contents = read_contents(archive)
    require_empty(place.database_url)
    _require_empty_folder(place, contents)
    keys = _keys(archive, contents, passphrase)
    place.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _database(archive, contents, place.data_dir) as copy:
        bring_up(copy)
        missing = _put_blobs(archive, place, copy)
        _finish(copy, contents, place, keys, now)
        copy_in(copy, place.database_url, contents.counters)
    return PutBack(contents, tuple(missing))


def _require_empty_folder(place: Place, contents: Contents) -> None:
    """A backup without keys may find them in place: they were kept elsewhere."""
    if not place.data_dir.exists():
        return
    allowed = {KEYS_FOLDER} if contents.keys == "none" else set()
    found = sorted(p.name for p in place.data_dir.iterdir() if p.name not in allowed)
    if found:
        raise PlaceTaken(
            f"{place.data_dir} holds {', '.join(found[:5])} already: a backup is put back into an "
            "empty folder only; move that one away"
        )


def _keys(archive: Reader, contents: Contents, passphrase: str | None) -> dict[str, bytes]:
    if contents.keys != "locked":
        return {}
    if passphrase is None:
        raise BackupUnusable("this backup holds the server's keys: give --passphrase-file")
    source = archive.open(KEYS)
    if source is None:
        raise BackupUnusable(f"there is no {KEYS} in it, though {KEYS_FOLDER} should be there")
    with source:
        return unlock(source.read(MOST_BYTES), passphrase)


@contextmanager
def _database(archive: Reader, contents: Contents, near: Path) -> Iterator[Path]:
    """A copy of the backup's database to work on, beside where it will be."""
    source = archive.open(DATABASE)
    if source is None:
        raise BackupUnusable(f"there is no {DATABASE} in it")
    with source, tempfile.TemporaryDirectory(dir=near.parent, prefix=f".{near.name}-") as folder:
        copy = Path(folder) / DATABASE
        hashing = Hashing(source)
        with copy.open("wb") as out:
            shutil.copyfileobj(hashing, out, PIECE)
        if hashing.hexdigest() != contents.database_sha256:
            raise BackupUnusable(f"{DATABASE} is damaged: its SHA-256 is not the one noted")
        yield copy


def _put_blobs(archive: Reader, place: Place, copy: Path) -> list[str]:
    """Store what the backup has of the blobs that are wanted and not there (a bucket may have been
    left as it was); return the digests of the others."""
    db = Database(f"sqlite:///{copy}")
    try:
        return _put_wanted(archive, place.blobs(db), wanted_blobs(copy))
    finally:
        db.close()


def _put_wanted(archive: Reader, store: BlobStore, wanted: Iterable[tuple[str, int]]) -> list[str]:
    missing = []
    for sha256, size in wanted:
        if store.size(sha256) == size:
            continue
        source = archive.open(blob_member(sha256))
        if source is None:
            missing.append(sha256)
            continue
        try:
            with source, store.begin(sha256, offset=0, length=size, restart=True) as upload:
                while piece := source.read(PIECE):
                    upload.write([piece])
                upload.finish()
        except DigestMismatch:
            missing.append(sha256)
    return missing


def _finish(
    copy: Path, contents: Contents, place: Place, keys: dict[str, bytes], now: datetime
) -> None:
    """Put the keys in place, note the restore in the audit log, and have deltas made again: no
    backup holds them."""
    db = Database(f"sqlite:///{copy}")
    try:
        store = place.keys(db)
        for name, data in keys.items():
            store.replace(name, data)
        with db.write() as session:
            deltas = metadata.tables["deltas"]
            session.execute(delete(deltas).where(deltas.c.delta_sha256.is_not(None)))
            after = {"made_at": contents.made_at.isoformat(), "events": contents.events}
            audit.record(session, actor="server", verb=VERB, object=OBJECT, now=now, after=after)
    finally:
        db.close()


def restored_from(session: Session, *, since: datetime) -> str:
    """When the backup was made from which this database was restored since then; empty: it was
    not."""
    e = AuditEventRow
    query = select(e.after).where(e.object == OBJECT, e.verb == VERB, e.at > since)
    after = session.scalar(query.order_by(e.id.desc()).limit(1))
    return "" if after is None else str(after["made_at"])
