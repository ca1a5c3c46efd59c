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
)

NOW = 1_000_000.0
LATER = 1_000_900


@pytest.fixture
def tokens(tmp_path: Path) -> DeviceTokens:
    return DeviceTokens(tmp_path / "keys" / "device-tokens.json")


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
    other = DeviceTokens(tmp_path / "other.json")
    with pytest.raises(BadToken):
        tokens.check(other.issue("cam-1", 1, expires=LATER).encode(), now=NOW)


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "device-tokens.json"
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda _: DeviceTokens(path), range(8)))
    token = several[0].issue("cam-1", 1, expires=LATER).encode()
    assert all(other.check(token, now=NOW).device == "cam-1" for other in several)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_keys_are_for_their_owner_alone(tokens: DeviceTokens, tmp_path: Path) -> None:
    mode = (tmp_path / "keys" / "device-tokens.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_after_a_change_of_key_the_tokens_of_the_last_one_live_on(
    tokens: DeviceTokens, tmp_path: Path
) -> None:
    oldest = tokens.issue("cam-1", 1, expires=LATER).encode()
    tokens.rotate()
    old = tokens.issue("cam-1", 1, expires=LATER).encode()
    assert tokens.check(oldest, now=NOW)
    tokens.rotate()
    assert tokens.check(old, now=NOW)
    with pytest.raises(BadToken):
        tokens.check(oldest, now=NOW)


def test_other_process_learns_of_a_new_key_from_its_first_token(
    tokens: DeviceTokens, tmp_path: Path
) -> None:
    other = DeviceTokens(tmp_path / "keys" / "device-tokens.json")
    tokens.rotate()
    token = tokens.issue("cam-1", 1, expires=LATER).encode()
    assert other.check(token, now=NOW).device == "cam-1"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"current": "a", "keys": {"b": "00"}}', "\0"])
def test_broken_key_file_is_told_with_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "device-tokens.json"
    path.write_text(content)
    with pytest.raises(BadTokenKeys, match="remove it"):
        DeviceTokens(path)
