"""The read token: what makes one good, and how its keys change."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotwave_server.device_api.tokens import (
    BadToken,
    BadTokenKeys,
    Claim,
    DeviceTokens,
    ExpiredToken,
    new_token_key,
)
from pilotwave_server.keystore.folder import FolderKeys

NOW = 1_000_000.0
LATER = 1_000_900


@pytest.fixture
def keys(tmp_path: Path) -> FolderKeys:
    return FolderKeys(tmp_path / "keys")


@pytest.fixture
def tokens(keys: FolderKeys) -> DeviceTokens:
    return DeviceTokens(keys)


@pytest.mark.parametrize("device", ["cam-1", "a", "a.b-c_d.e", "x" * 64])
def test_token_says_who_and_for_how_long(tokens: DeviceTokens, device: str) -> None:
    token = tokens.issue(device, 3, expires=LATER)
    assert tokens.check(token.encode(), now=NOW) == Claim(device, 3, LATER)
    assert len(token) < 130


def test_token_ends_at_its_second(tokens: DeviceTokens) -> None:
    token = tokens.issue("cam-1", 1, expires=LATER).encode()
    tokens.check(token, now=LATER - 0.001)
    with pytest.raises(ExpiredToken):
        tokens.check(token, now=LATER)


def test_each_changed_character_makes_it_bad(tokens: DeviceTokens) -> None:
    token = tokens.issue("cam-1", 1, expires=LATER).encode()
    for place in range(len(token)):
        for other in (b".", b"0", b"A"):
            changed = token[:place] + other + token[place + 1 :]
            if changed != token:
                with pytest.raises(BadToken):
                    tokens.check(changed, now=NOW)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=80) | st.text("a.0-", max_size=40).map(str.encode))
def test_anything_else_is_a_bad_token(tokens: DeviceTokens, raw: bytes) -> None:
    with pytest.raises(BadToken):
        tokens.check(raw, now=NOW)


def test_token_of_another_server_is_bad(tokens: DeviceTokens, tmp_path: Path) -> None:
    other = DeviceTokens(FolderKeys(tmp_path / "other"))
    with pytest.raises(BadToken):
        tokens.check(other.issue("cam-1", 1, expires=LATER).encode(), now=NOW)


def test_processes_that_start_together_share_one_key(keys: FolderKeys) -> None:
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda _: DeviceTokens(keys), range(8)))
    token = several[0].issue("cam-1", 1, expires=LATER).encode()
    assert all(other.check(token, now=NOW).device == "cam-1" for other in several)
    assert [p.name for p in keys.folder.iterdir()] == ["device-tokens.json"]


def test_keys_are_for_their_owner_alone(tokens: DeviceTokens, tmp_path: Path) -> None:
    mode = (tmp_path / "keys" / "device-tokens.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_after_a_change_of_key_the_tokens_of_the_last_one_live_on(
    tokens: DeviceTokens, keys: FolderKeys
) -> None:
    oldest = tokens.issue("cam-1", 1, expires=LATER).encode()
    change(tokens, keys)
    old = tokens.issue("cam-1", 1, expires=LATER).encode()
    assert tokens.check(oldest, now=NOW)
    change(tokens, keys)
    assert tokens.check(old, now=NOW)
    with pytest.raises(BadToken):
        tokens.check(oldest, now=NOW)


def change(tokens: DeviceTokens, keys: FolderKeys) -> None:
    new_token_key(keys)
    tokens.reread()


def test_after_a_theft_no_token_lives_on(tokens: DeviceTokens, keys: FolderKeys) -> None:
    old = tokens.issue("cam-1", 1, expires=LATER).encode()
    new_token_key(keys, stolen=True)
    tokens.reread()
    with pytest.raises(BadToken):
        tokens.check(old, now=NOW)


def test_other_process_reads_the_keys_again_when_it_sees_a_token_of_a_new_one(
    tokens: DeviceTokens, keys: FolderKeys
) -> None:
    other = DeviceTokens(keys)
    woken = []
    other.on_unknown = lambda: woken.append(1)
    change(tokens, keys)
    token = tokens.issue("cam-1", 1, expires=LATER).encode()
    for _ in range(100):
        with pytest.raises(BadToken):
            other.check(token, now=NOW)
    assert len(woken) == 1, "not for each: tokens are easily made up"
    other.reread()
    assert other.check(token, now=NOW).device == "cam-1"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"current": "a", "keys": {"b": "00"}}', "\0"])
def test_broken_key_file_is_told_with_what_to_do(keys: FolderKeys, content: str) -> None:
    keys.replace("device-tokens.json", content.encode())
    with pytest.raises(BadTokenKeys, match="new-token-key --stolen"):
        DeviceTokens(keys)
    new_token_key(keys, stolen=True)
    DeviceTokens(keys)
