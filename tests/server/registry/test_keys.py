from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.keystore.port import KeysUnusable
from pilotwave_server.registry.keys import ensure_server_keys, load_keys, stage_key


def test_the_server_s_keys_are_its_owner_s_alone(tmp_path: Path) -> None:
    ensure_server_keys(FolderKeys(tmp_path / "keys"))
    ensure_server_keys(FolderKeys(tmp_path / "keys"))
    names = sorted(p.name for p in (tmp_path / "keys").glob("*.pem"))
    assert names == ["director-1.pem", "online-1.pem"]
    for path in (tmp_path / "keys").glob("*.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stage_key(FolderKeys(tmp_path / "keys"), "online").number == 2
    assert [key.number for key in load_keys(FolderKeys(tmp_path / "keys"), "online")] == [1, 2]


def test_a_key_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    ensure_server_keys(FolderKeys(tmp_path / "keys"))
    path = tmp_path / "keys/online-1.pem"
    path.chmod(0o644)
    with pytest.raises(KeysUnusable, match="chmod 600"):
        load_keys(FolderKeys(tmp_path / "keys"), "online")


def test_a_key_reference_works_where_a_key_file_does(tmp_path: Path) -> None:
    ensure_server_keys(FolderKeys(tmp_path / "keys"))
    [key] = load_keys(FolderKeys(tmp_path / "keys"), "online")
    pem = (tmp_path / "keys/online-1.pem").rename(tmp_path / "elsewhere.pem")
    reference = {"uri": f"file2:{pem}", "keyid": key.keyid, "key": key.public.to_dict()}
    (tmp_path / "keys/online-1.json").write_text(json.dumps(reference))
    [found] = load_keys(FolderKeys(tmp_path / "keys"), "online")
    assert found.keyid == key.keyid
    assert found.signer.sign(b"x").signature == key.signer.sign(b"x").signature


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("in the way")
    with pytest.raises(KeysUnusable, match="keys"):
        ensure_server_keys(FolderKeys(tmp_path / "keys"))
