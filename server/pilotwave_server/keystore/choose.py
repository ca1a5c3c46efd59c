"""Which place the settings name, and how keys get from one to the other."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.db import Database
from pilotwave_server.errors import BadSetting, NotInitialised
from pilotwave_server.keystore.database import DatabaseKeys, has_keys
from pilotwave_server.keystore.encryption import KEY_BYTES, KeyEncryption, key_encryption
from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.keystore.port import KeyStore, KeysUnusable
from pilotwave_server.keystore.tables import ServerKeyRow
from pilotwave_server.settings import Settings

VARIABLES = "PILOTWAVE_KEY_ENCRYPTION_KEY (or …_FILE, …_COMMAND)"


def open_keys(settings: Settings, db: Database) -> KeyStore:
    """The database where a key-encryption key is set, else the folder. BadSetting."""
    encryption = key_encryption(settings)
    return DatabaseKeys(db, encryption) if encryption else FolderKeys(settings.keys_dir)


def check_place(session: Session, keys: KeyStore, settings: Settings) -> None:
    """Raise KeysUnusable where the settings name one place and the keys are in the other."""
    folder = FolderKeys(settings.keys_dir)
    if isinstance(keys, DatabaseKeys) and not has_keys(session) and folder.read("online-"):
        raise KeysUnusable(
            f"a key-encryption key is set, and this fleet's server keys are in {folder.where}: "
            "stop the server and run `pilotwave-server keys move`, or unset it (docs/hosts.md)"
        )
    if isinstance(keys, FolderKeys) and has_keys(session):
        raise KeysUnusable(
            "this fleet's server keys are in the database, and no key-encryption key is set: set "
            f"{VARIABLES} to the one that the other hosts have (docs/hosts.md)"
        )


def move(settings: Settings, db: Database, *, to_database: bool) -> list[str]:
    """Move every key to the other place; return their names. KeysUnusable, NotInitialised.

    A key is removed where it was only when it is read where it shall be.
    """
    table, folder = _table(settings, db), FolderKeys(settings.keys_dir)
    source, target = (folder, table) if to_database else (table, folder)
    found = source.read()
    if not found:
        raise NotInitialised(f"there are no keys in {source.where}")
    for name, data in found.items():
        if not target.add(name, data) and target.read(name).get(name) != data:
            raise KeysUnusable(
                f"{target.where} holds another {name} than {source.where}: nothing was removed; "
                "keep the ones that devices trust, and move the others away"
            )
    if {name: data for name, data in target.read().items() if name in found} != found:
        raise KeysUnusable(f"{target.where} does not give back what was moved there")
    for name in found:
        source.remove(name)
    return list(found)


def _table(settings: Settings, db: Database) -> DatabaseKeys:
    encryption = key_encryption(settings)
    if encryption is None:
        raise BadSetting(
            f"no key-encryption key is set: `openssl rand -base64 {KEY_BYTES}` makes one; set "
            f"{VARIABLES} on every host (docs/hosts.md)"
        )
    return DatabaseKeys(db, encryption)


def encrypt_anew(settings: Settings, db: Database, old: KeyEncryption) -> int:
    """Encrypt every key in the database with the key that is set, instead of the old one; return
    how many. All or nothing. BadSetting, KeysUnusable."""
    with db.write() as session:
        session.scalars(select(ServerKeyRow.name).with_for_update()).all()
        found = DatabaseKeys(db, old).read("", session)
        table = _table(settings, db)
        for name, data in found.items():
            table.replace(name, data, session)
    return len(found)
