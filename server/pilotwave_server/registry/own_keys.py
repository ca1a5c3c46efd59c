"""Whether the keys that this server holds are those that the fleet's documents list."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from pilotwave_server.db import fleet_row
from pilotwave_server.errors import SetupError
from pilotwave_server.keystore.port import KeyStore
from pilotwave_server.registry import authority, documents
from pilotwave_server.registry.keys import KINDS, Kind, load_keys
from pilotwave_server.registry.sealing import OnlineKeyUnknown, online_signers

ROTATE: dict[Kind, str] = {
    "online": "`pilotwave keys rotate online`",
    "director": "`pilotwave keys rotate director`",
}
NEW_KEYS = "new-keys"
"""Beside the keys: they were made anew on purpose, and wait for their rotation."""


class OtherKeys(SetupError):
    code = "other_keys"


def check_own_keys(session: Session, keys: KeyStore) -> bool:
    """Raise `OtherKeys` where devices trust other keys than the ones held here.

    A fleet without a root takes any keys, and so does one for which `expect_rotation` was called
    until they are rotated in. Say whether that is still awaited.
    """
    foreign = list(_foreign(session, keys))
    expected = NEW_KEYS in keys.read(NEW_KEYS, session)
    if foreign and not expected:
        raise OtherKeys(
            f"devices of this fleet trust another {' and another '.join(foreign)} key than "
            f"{keys.where} holds: put that back from the backup of this server. "
            "Where its keys are lost for good: `pilotwave-server init --new-keys --fleet "
            f"{fleet_row(session).fleet}` with this server's settings, then start it, then "
            + " and ".join(ROTATE[kind] for kind in foreign)
        )
    return bool(foreign)


def missing_keys(keys: KeyStore, session: Session) -> list[Kind]:
    """The kinds of which there is no key."""
    return [kind for kind in KINDS if not load_keys(keys, kind, session)]


def unknown_keys(session: Session, keys: KeyStore) -> list[str]:
    """The keys held here that nothing in this database lists, as `online-2`: made for a rotation
    that did not end, or that this database, which is older, knows nothing of."""
    root = documents.load(session, Root.type, Root)
    targets = documents.load(session, Targets.type, Targets)
    if root is None or targets is None:
        return []
    online = {keyid for role in (Snapshot.type, Timestamp.type)
              for keyid in root.signed.roles[role].keyids}  # fmt: skip
    director = authority.director_keys(targets.signed).keys
    held = [k for k in load_keys(keys, "online", session) if k.keyid not in online]
    held += [k for k in load_keys(keys, "director", session) if k.director_keyid not in director]
    return [f"{key.kind}-{key.number}" for key in held]


def expect_rotation(keys: KeyStore, session: Session) -> None:
    """Let the server start with keys that nothing trusts yet, so that they can be rotated in."""
    keys.replace(NEW_KEYS, b"", session)


def rotation_is_over(keys: KeyStore) -> None:
    """Let the server start with keys that devices trust alone, from now on."""
    if NEW_KEYS in keys.read(NEW_KEYS):
        keys.remove(NEW_KEYS)


def _foreign(session: Session, keys: KeyStore) -> Iterator[Kind]:
    """Yield the kinds of which too few keys are held."""
    root = documents.load(session, Root.type, Root)
    targets = documents.load(session, Targets.type, Targets)
    if root is None or targets is None:
        return
    try:
        for role in (Snapshot.type, Timestamp.type):
            online_signers(root.signed, role, load_keys(keys, "online", session))
    except OnlineKeyUnknown:
        yield "online"
    listed = authority.director_keys(targets.signed)
    try:
        held = load_keys(keys, "director", session)
        authority.check_director(listed, fleet=listed.fleet, held=held)
    except authority.NoDirectorKey:
        yield "director"
