"""Make the server's next key, ahead of the documents that will trust it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session
from tuf.api.metadata import Root, Targets, Timestamp

from pilotwave_server import audit
from pilotwave_server.db import Database, lock_fleet, next_revision
from pilotwave_server.registry import authority, documents
from pilotwave_server.registry.keys import Kind, ServerKey
from pilotwave_server.registry.sealing import seal
from pilotwave_server.registry.trust import TrustStore


def stage_key(
    *,
    db: Database,
    trust: TrustStore,
    kind: Kind,
    actor: str,
    now: datetime,
    fresh: bool = False,
) -> ServerKey:
    """Make the key that shall follow, or return the one that waits already, unless another is
    wanted (`fresh`): whoever stole the server has the one that waits, too.

    A new online key signs at once, beside the old one, so that a root which lists only the new one
    finds valid documents.
    """
    with db.write() as session:
        lock_fleet(session)
        keys = trust.keys(kind, session)
        newest = keys[-1] if keys else None
        if fresh or newest is None or _is_trusted(session, newest):
            newest = trust.stage(kind, session)
            audit.record(
                session,
                actor=actor,
                verb=f"trust.{kind}_key",
                object=f"key/{kind}-{newest.number}",
                now=now,
                after={"keyid": newest.keyid},
            )
            if kind == "online":
                seal(session, changed=[], keys=trust.keys(kind, session), now=now)
                next_revision(session)
    trust.committed()
    return newest


def _is_trusted(session: Session, key: ServerKey) -> bool:
    root = documents.need(session, Root.type, Root).signed
    if key.kind == "online":
        return key.keyid in root.roles[Timestamp.type].keyids
    targets = documents.need(session, Targets.type, Targets).signed
    return key.director_keyid in authority.director_keys(targets).keys
