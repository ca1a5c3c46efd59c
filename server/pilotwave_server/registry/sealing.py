"""Put what was accepted under a new snapshot and timestamp, signed by the online key.

Which online keys sign: those that the valid root lists, and those made after them. So during a
rotation both the old and the new key sign, and the old one stops when root lists it no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from securesystemslib.signer import Signer
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from pilotwave_protocol.fields import format_time
from pilotwave_protocol.signing import (
    SNAPSHOT_LIFETIME,
    SPEC_VERSION,
    TIMESTAMP_LIFETIME,
    sign,
)
from pilotwave_server.errors import Conflict
from pilotwave_server.registry import documents
from pilotwave_server.registry.keys import ServerKey

# Sign again when this part of a document's life has gone by.
SNAPSHOT_PART = 3
TIMESTAMP_PART = 4


class OnlineKeyUnknown(Conflict):
    code = "online_key_unknown"


def online_signers(root: Root, role: str, keys: Sequence[ServerKey]) -> list[Signer]:
    """The keys with which the server signs `role`, or OnlineKeyUnknown if they are too few."""
    listed = [key for key in keys if key.keyid in root.roles[role].keyids]
    if len(listed) < root.roles[role].threshold:
        raise OnlineKeyUnknown(
            f"root {root.version} does not list this server's online key for {role};"
            " see GET /api/v1/trust/server-keys for the key it holds"
        )
    newest = max(key.number for key in listed)
    return [key.signer for key in keys if key in listed or key.number > newest]


def seal(
    session: Session,
    *,
    changed: Iterable[str],
    keys: Sequence[ServerKey],
    now: datetime,
    least: tuple[int, int] = (0, 0),
) -> None:
    """Write snapshot+1 (with the newest documents of the `changed` roles) and timestamp+1; with
    `least`, no lower versions of timestamp and snapshot than these."""
    root = documents.need(session, Root.type, Root).signed
    old = documents.load(session, Snapshot.type, Snapshot)
    # An entry is never dropped: clients refuse a snapshot that forgets a role.
    meta = dict(old.signed.meta) if old else {}
    for role in changed:
        row = documents.find(session, role)
        if row is None:
            raise documents.NotBootstrapped
        meta[f"{role}.json"] = MetaFile.from_data(row.version, row.document, ["sha256"])
    snapshot = Metadata(
        Snapshot(
            version=max(old.signed.version + 1 if old else 1, least[1]),
            spec_version=SPEC_VERSION,
            expires=(now + SNAPSHOT_LIFETIME).replace(microsecond=0),
            meta=meta,
        )
    )
    sign(snapshot, online_signers(root, Snapshot.type, keys))
    documents.insert(session, Snapshot.type, snapshot, now=now)
    stamp(session, root=root, keys=keys, now=now, least=least[0])


def stamp(
    session: Session, *, root: Root, keys: Sequence[ServerKey], now: datetime, least: int = 0
) -> None:
    """Write timestamp+1, or `least` if that is higher, over the newest snapshot."""
    row = documents.find(session, Snapshot.type)
    if row is None:
        raise documents.NotBootstrapped
    old = documents.load(session, Timestamp.type, Timestamp)
    timestamp = Metadata(
        Timestamp(
            version=max(old.signed.version + 1 if old else 1, least),
            spec_version=SPEC_VERSION,
            expires=(now + TIMESTAMP_LIFETIME).replace(microsecond=0),
            snapshot_meta=MetaFile.from_data(row.version, row.document, ["sha256"]),
            unrecognized_fields={"signed_at": format_time(now)},
        )
    )
    sign(timestamp, online_signers(root, Timestamp.type, keys))
    documents.insert(session, Timestamp.type, timestamp, now=now)


def is_due(*, created: datetime, expires: datetime, part: int, now: datetime) -> bool:
    """Whether a document has lived a `part`-th of its life."""
    return now - created >= (expires - created) / part
