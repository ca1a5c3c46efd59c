"""Whether the keys that this server holds are those that the fleet's documents list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from pilotwave_server.db import fleet_row
from pilotwave_server.errors import SetupError
from pilotwave_server.registry import authority, documents
from pilotwave_server.registry.keys import Kind, keys_dir, load_keys
from pilotwave_server.registry.sealing import OnlineKeyUnknown, online_signers

ROTATE: dict[Kind, str] = {
    "online": "`pilotwave keys rotate online`",
    "director": "`pilotwave keys rotate director`",
}
NEW_KEYS = "new-keys"
"""A file in the keys' folder: its keys were made anew on purpose, and wait for their rotation."""


class OtherKeys(SetupError):
    code = "other_keys"


def check_own_keys(session: Session, data_dir: Path) -> None:
    """Raise `OtherKeys` where devices trust other keys than the ones held here.

    A fleet without a root takes any keys, and so does one for which `expect_rotation` was called.
    """
    foreign = list(_foreign(session, data_dir))
    expected = keys_dir(data_dir) / NEW_KEYS
    if not foreign:
        expected.unlink(missing_ok=True)
    elif not expected.exists():
        raise OtherKeys(
            f"devices of this fleet trust another {' and another '.join(foreign)} key than "
            f"{keys_dir(data_dir)} holds: put that folder back from the backup of this server. "
            "Where its keys are lost for good: `pilotwave-server init --new-keys --fleet "
            f"{fleet_row(session).fleet}` with this server's settings, then start it, then "
            + " and ".join(ROTATE[kind] for kind in foreign)
        )


def expect_rotation(data_dir: Path) -> None:
    """Let the server start with keys that nothing trusts yet, so that they can be rotated in."""
    (keys_dir(data_dir) / NEW_KEYS).touch(mode=0o600)


def _foreign(session: Session, data_dir: Path) -> Iterator[Kind]:
    """Yield the kinds of which too few keys are held."""
    root = documents.load(session, Root.type, Root)
    targets = documents.load(session, Targets.type, Targets)
    if root is None or targets is None:
        return
    try:
        for role in (Snapshot.type, Timestamp.type):
            online_signers(root.signed, role, load_keys(data_dir, "online"))
    except OnlineKeyUnknown:
        yield "online"
    listed = authority.director_keys(targets.signed)
    try:
        authority.check_director(listed, fleet=listed.fleet, held=load_keys(data_dir, "director"))
    except authority.NoDirectorKey:
        yield "director"
