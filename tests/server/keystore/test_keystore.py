"""Both places for keys behave alike; the one in the database tells its secrets to nobody."""

from __future__ import annotations

import base64
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from pilotwave_server.db import Database
from pilotwave_server.device_api.tokens import BadToken, DeviceTokens, new_token_key
from pilotwave_server.errors import BadSetting
from pilotwave_server.keystore.choose import check_place, encrypt_anew, move, open_keys
from pilotwave_server.keystore.database import DatabaseKeys
from pilotwave_server.keystore.encryption import key_encryption, key_file_encryption
from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.keystore.port import KeyStore, KeysUnusable
from pilotwave_server.keystore.tables import ServerKeyRow
from pilotwave_server.registry.keys import ensure_server_keys, load_keys, stage_key
from pilotwave_server.settings import Settings


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def with_key(settings: Settings, **given: Any) -> Settings:
    given = given or {"key_encryption_key": new_key()}
    return Settings(**{**settings.model_dump(), **given})


@pytest.fixture(params=["folder", "database"])
def keys(request: pytest.FixtureRequest, settings: Settings, db: Database) -> KeyStore:
    if request.param == "folder":
        return FolderKeys(settings.data_dir / "other")
    return open_keys(with_key(settings), db)


def test_a_key_is_never_replaced_by_adding(keys: KeyStore) -> None:
    assert keys.read() == {}
    assert keys.add("online-1.pem", b"one")
    assert not keys.add("online-1.pem", b"two")
    assert keys.add("director-1.pem", b"three")
    assert keys.read("online-") == {"online-1.pem": b"one"}
    keys.replace("online-1.pem", b"two")
    assert keys.read() == {"director-1.pem": b"three", "online-1.pem": b"two"}
    keys.remove("online-1.pem")
    keys.remove("online-1.pem")
    assert list(keys.read()) == ["director-1.pem"]


def test_hosts_that_start_together_make_one_key_of_each_kind(keys: KeyStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ensure_server_keys(keys), range(4)))
    assert sorted(keys.read()) == ["director-1.pem", "online-1.pem"]
    assert stage_key(keys, "online").number == 2
    assert [key.number for key in load_keys(keys, "online")] == [1, 2]


def test_the_folder_s_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path / "keys")
    keys.replace("online-1.pem", b"one")
    keys.add("online-2.pem", b"two")
    assert {stat.S_IMODE(p.stat().st_mode) for p in keys.folder.iterdir()} == {0o600}
    assert sorted(p.name for p in keys.folder.iterdir()) == ["online-1.pem", "online-2.pem"]


def test_what_is_added_goes_with_its_transaction(settings: Settings, db: Database) -> None:
    keys = open_keys(with_key(settings), db)
    with db.write() as session:
        keys.add("online-1.pem", b"one", session)
        assert keys.read("", session)
        session.rollback()
    assert keys.read() == {}


def test_the_table_holds_nothing_readable(settings: Settings, db: Database) -> None:
    keys = open_keys(with_key(settings), db)
    ensure_server_keys(keys)
    with db.read() as session:
        for sealed in session.scalars(select(ServerKeyRow.sealed)):
            assert b"PRIVATE" not in sealed


def test_another_key_encryption_key_is_told(settings: Settings, db: Database) -> None:
    open_keys(with_key(settings), db).add("online-1.pem", b"one")
    with pytest.raises(KeysUnusable, match="another key than the one set here"):
        open_keys(with_key(settings), db).read()


def test_keys_cannot_be_put_in_each_other_s_place(settings: Settings, db: Database) -> None:
    keys = open_keys(with_key(settings), db)
    keys.add("online-1.pem", b"one")
    with db.write() as session:
        session.execute(update(ServerKeyRow).values(name="director-1.pem"))
    with pytest.raises(KeysUnusable, match=r"director-1\.pem") as told:
        keys.read()
    assert told.value.code == "keys_unusable"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key_encryption_key": "short"}, "KEY_ENCRYPTION_KEY: expected 32 bytes in base64"),
        ({"key_encryption_key": base64.b64encode(b"x" * 16).decode()}, "got 16 bytes"),
        ({"key_encryption_key": "a", "key_encryption_key_file": "b"}, "set one of them"),
        ({"key_encryption_key_file": "/nonexistent/key"}, "cannot be read: No such file"),
        ({"key_encryption_key_command": "false"}, "ended with status 1"),
        ({"key_encryption_key_command": "/nonexistent/key"}, "cannot be run"),
        ({"key_encryption_key_command": "echo hello"}, "expected 32 bytes"),
    ],
)
def test_a_wrong_setting_is_told_without_its_value(given: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=said) as told:
        key_encryption(Settings(**given))  # type: ignore[arg-type]  # pydantic checks the values
    assert "short" not in str(told.value)


def test_the_key_comes_from_a_setting_a_file_or_a_command(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    key, path = new_key(), tmp_path / "kek"
    path.write_text(key + "\n")
    open_keys(with_key(settings, key_encryption_key=key), db).add("online-1.pem", b"one")
    for given in (
        {"key_encryption_key_file": str(path)},
        {"key_encryption_key_command": f"cat {path}"},
    ):
        assert open_keys(with_key(settings, **given), db).read() == {"online-1.pem": b"one"}


def test_keys_are_moved_and_back(settings: Settings, db: Database) -> None:
    folder, settings = FolderKeys(settings.keys_dir), with_key(settings)
    held = folder.read()
    with db.read() as session, pytest.raises(KeysUnusable, match="keys move"):
        check_place(session, open_keys(settings, db), settings)
    assert move(settings, db, to_database=True) == ["director-1.pem", "online-1.pem"]
    assert folder.read() == {}
    assert open_keys(settings, db).read() == held
    with db.read() as session, pytest.raises(KeysUnusable, match="no key-encryption key is set"):
        check_place(session, folder, settings)
    move(settings, db, to_database=False)
    assert folder.read() == held
    with db.read() as session:
        check_place(session, folder, settings)


def test_a_move_over_other_keys_removes_nothing(settings: Settings, db: Database) -> None:
    folder, settings = FolderKeys(settings.keys_dir), with_key(settings)
    held = folder.read()
    open_keys(settings, db).add("online-1.pem", b"another")
    with pytest.raises(KeysUnusable, match="nothing was removed"):
        move(settings, db, to_database=True)
    assert folder.read() == held


def test_keys_are_encrypted_anew(settings: Settings, db: Database, tmp_path: Path) -> None:
    old, new = with_key(settings), with_key(settings)
    (tmp_path / "old").write_text(old.key_encryption_key)
    open_keys(old, db).add("online-1.pem", b"one")
    assert encrypt_anew(new, db, key_file_encryption(tmp_path / "old")) == 1
    assert open_keys(new, db).read() == {"online-1.pem": b"one"}
    with pytest.raises(KeysUnusable):
        open_keys(old, db).read()


def test_a_token_of_one_host_is_good_at_the_other(settings: Settings, db: Database) -> None:
    shared = with_key(settings)
    a, b = (DeviceTokens(open_keys(shared, db)) for _ in "ab")
    token = a.issue("cam-1", 1, expires=2_000).encode()
    assert b.check(token, now=1_000).device == "cam-1"
    new_token_key(open_keys(shared, db), stolen=True)
    b.reread()
    with pytest.raises(BadToken):
        b.check(token, now=1_000)


def test_without_a_key_encryption_key_keys_are_files(settings: Settings, db: Database) -> None:
    assert isinstance(open_keys(settings, db), FolderKeys)
    assert isinstance(open_keys(with_key(settings), db), DatabaseKeys)
