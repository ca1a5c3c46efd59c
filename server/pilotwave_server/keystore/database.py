"""Keys in the database, encrypted: every host that has the key-encryption key has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pilotwave_server.clock import utc_now
from pilotwave_server.db import Database, insert_missing, upsert
from pilotwave_server.keystore.encryption import KeyEncryption
from pilotwave_server.keystore.tables import ServerKeyRow


class DatabaseKeys:
    """The keys in the table `server_keys`."""

    where = "the database's table server_keys"

    def __init__(self, db: Database, encryption: KeyEncryption) -> None:
        self._db = db
        self._encryption = encryption

    def read(self, beginning: str = "", session: Session | None = None) -> dict[str, bytes]:
        if session is None:
            with self._db.read() as own:
                return self.read(beginning, own)
        row = ServerKeyRow
        found = session.execute(
            select(row.name, row.sealed)
            .where(row.name.startswith(beginning, autoescape=True))
            .order_by(row.name)
        ).tuples()
        return {name: self._encryption.open(name, sealed) for name, sealed in found}

    def add(self, name: str, data: bytes, session: Session | None = None) -> bool:
        with self._writing(session) as writing:
            insert_missing(writing, ServerKeyRow, [self._row(name, data)])
            return self.read(name, writing).get(name) == data

    def replace(self, name: str, data: bytes, session: Session | None = None) -> None:
        with self._writing(session) as writing:
            upsert(writing, ServerKeyRow, [self._row(name, data)])

    def remove(self, name: str, session: Session | None = None) -> None:
        with self._writing(session) as writing:
            writing.execute(delete(ServerKeyRow).where(ServerKeyRow.name == name))

    def _row(self, name: str, data: bytes) -> dict[str, object]:
        return {
            "name": name,
            "sealed": self._encryption.seal(name, data),
            "changed_at": utc_now(),
        }

    @contextmanager
    def _writing(self, session: Session | None) -> Iterator[Session]:
        if session is not None:
            yield session
            return
        with self._db.write() as own:
            yield own


def has_keys(session: Session) -> bool:
    """Whether this fleet's server keys are in the database."""
    return session.scalar(select(ServerKeyRow.name).limit(1)) is not None
