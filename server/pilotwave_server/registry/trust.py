"""The server's side of trust: which of its keys sign now, and which TUF versions are valid.

One `TrustStore` per process. Its picture is replaced as a whole by `refresh`, so readers need no
lock. It decides nothing about what may be published: `publish.py` and `accept_documents.py` do.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from pilotwave_protocol import dsse, names
from pilotwave_protocol.trust import DirectorKeys
from pilotwave_server.db import Database
from pilotwave_server.errors import Unavailable
from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.keystore.port import KeyStore
from pilotwave_server.registry import documents
from pilotwave_server.registry.export import Exporter
from pilotwave_server.registry.keys import Kind, ServerKey, load_keys, stage_key
from pilotwave_server.registry.tables import TufMetadataRow


class DirectorKeyUnknown(Unavailable):
    """`fleet/director` lists no key that this server holds, so it can sign no directive."""

    code = "director_key_unknown"


class TrustNotReady(Unavailable):
    code = "not_bootstrapped"


class TufVersions(NamedTuple):
    """The valid versions of the documents that a device asks for first."""

    root: int
    timestamp: int
    snapshot: int


@dataclass(frozen=True)
class TrustState:
    """One moment's picture. `expires` is by role; `directors` are the keys that sign directives."""

    versions: TufVersions
    director: DirectorKeys
    directors: tuple[ServerKey, ...]
    expires: Mapping[str, datetime]


class TrustStore:
    """What this process knows of its keys and of the valid metadata."""

    def __init__(self, db: Database, data_dir: Path, keys: KeyStore | None = None) -> None:
        self._db = db
        self._keys = keys or FolderKeys(data_dir / "keys")
        self._state: TrustState | None = None
        self._lock = threading.Lock()
        self.exporter = Exporter(db, data_dir / "tuf")

    def keys(self, kind: Kind, session: Session | None = None) -> list[ServerKey]:
        """The keys that this server holds, the oldest first."""
        return load_keys(self._keys, kind, session)

    def stage(self, kind: Kind, session: Session) -> ServerKey:
        """Make the next key of a kind; nothing trusts it yet."""
        return stage_key(self._keys, kind, session)

    def start(self) -> None:
        """Write what an earlier crash left unwritten, and read the keys. Raises BadServerKey."""
        self.exporter.export(all_files=True)
        self.keys("online")
        self.refresh(exported=True)

    def stop(self) -> None:
        """Nothing is held open between calls."""

    def committed(self) -> None:
        """After each commit that changed metadata: write its files, then take the new picture."""
        self.exporter.export()
        self.refresh(exported=True)

    def refresh(self, *, exported: bool = False) -> bool:
        """Take a new picture if the metadata changed, here or in another process; say whether."""
        with self._lock:
            with self._db.read() as session:
                newest = session.scalar(
                    select(func.max(TufMetadataRow.version)).where(
                        TufMetadataRow.role == Timestamp.type
                    )
                )
                if newest is None or (self._state and self._state.versions.timestamp == newest):
                    return False
                state = take_picture(session, self.keys("director", session))
            if not exported:
                self.exporter.export()
            self._state = state
            return True

    @property
    def state(self) -> TrustState:
        """The present picture, or TrustNotReady before `pilotwave keys init`."""
        state = self._state
        if state is None:
            raise TrustNotReady("this fleet has no root of trust yet: run `pilotwave keys init`")
        return state

    @property
    def bootstrapped(self) -> bool:
        return self._state is not None

    @property
    def versions(self) -> TufVersions:
        """The valid versions, as a hint to devices and as the directive's `min_snapshot`."""
        return self.state.versions

    @property
    def director_id(self) -> str:
        """Changes when directives are signed by another key, so that devices fetch a new one."""
        return ",".join(key.director_keyid for key in self.state.directors)

    def sign_directive(self, payload_type: str, payload: bytes) -> bytes:
        """An envelope signed by as many director keys as devices demand.

        Raises TrustNotReady, DirectorKeyUnknown.
        """
        state = self.state
        if len(state.directors) < state.director.threshold:
            raise DirectorKeyUnknown(
                f"devices want directives signed by {state.director.threshold} of the director keys"
                f" in TUF, and this server holds {len(state.directors)} of them"
            )
        message = dsse.pae(payload_type, payload)
        signatures = [
            (key.director_keyid, bytes.fromhex(key.signer.sign(message).signature))
            for key in state.directors
        ]
        return dsse.wrap(payload_type, payload, signatures)


def take_picture(session: Session, director_keys: Sequence[ServerKey]) -> TrustState:
    """The picture of what a session sees, or NotBootstrapped."""
    targets = documents.need(session, Targets.type, Targets).signed
    director = DirectorKeys.from_custom(targets.targets[names.DIRECTOR_PATH].custom)
    rows = documents.newest(session)
    versions = [rows[role].version for role in (Root.type, Timestamp.type, Snapshot.type)]
    return TrustState(
        versions=TufVersions(*versions),
        director=director,
        directors=signing_directors(director, director_keys),
        expires=MappingProxyType({role: row.expires_at for role, row in rows.items()}),
    )


def signing_directors(director: DirectorKeys, keys: Sequence[ServerKey]) -> tuple[ServerKey, ...]:
    """The newest of the held keys that devices trust, as many as must sign."""
    listed = [key for key in keys if key.director_keyid in director.keys]
    return tuple(listed[-director.threshold :])
