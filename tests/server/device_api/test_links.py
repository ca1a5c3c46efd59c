"""Links for mirrors: what one opens, for how long, and what a cache is told of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pilotwave_protocol.digest import EMPTY_SHA256, sha256_hex
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.registry import onnx

pytestmark = only_sqlite

OURS, OTHER = sha256_hex(onnx("detector 1.0.0")), sha256_hex(onnx("detector 1.1.0"))


@pytest.fixture
def cam(fleet: Fleet) -> SimulatedDevice:
    """A device that is told to run 1.0.0, and so may read `OURS`."""
    device = fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    return device


def ask(cam: SimulatedDevice, path: str) -> httpx.Response:
    return cam.http.get(path, headers={"Authorization": f"Bearer {cam.token}"})


def link(cam: SimulatedDevice, path: str = f"/blobs/{OURS}") -> str:
    answer = ask(cam, f"/device/v1/links{path}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["expires_in_s"] == 300
    assert "no-store" in answer.headers["cache-control"]
    return str(answer.json()["path"])


def told(fleet: Fleet, path: str, **headers: str) -> list[tuple[int, str]]:
    """What the server says to a cache that asks about this, and to whoever asks for the bytes."""
    cache = fleet.client.get(f"/device/v1/may-read{path}", headers=headers)
    assert cache.headers.get("cache-control", "no-store") == "no-store"
    bytes_ = fleet.client.get(path, headers=headers)
    return [(a.status_code, "" if a.is_success else code_of(a)[1]) for a in (cache, bytes_)]


def test_a_link_opens_its_blob_without_a_token(cam: SimulatedDevice, fleet: Fleet) -> None:
    found = link(cam)
    assert cam.token not in found
    assert told(fleet, found) == [(204, ""), (200, "")]
    assert fleet.client.get(found).content == onnx("detector 1.0.0")
    assert fleet.client.head(found).status_code == 200


def test_a_token_is_answered_for_like_a_link(cam: SimulatedDevice, fleet: Fleet) -> None:
    ours = {"Authorization": f"Bearer {cam.token}"}
    assert told(fleet, f"/blobs/{OURS}", **ours) == [(204, ""), (200, "")]
    assert told(fleet, f"/blobs/{OTHER}", **ours) == [(403, "blob_denied")] * 2


def test_an_operators_token_reads_through_a_cache_too(fleet: Fleet, viewer_token: str) -> None:
    viewer = {"Authorization": f"Bearer {viewer_token}"}
    assert told(fleet, f"/blobs/{OTHER}", **viewer) == [(204, ""), (200, "")]


def test_no_link_is_given_to_what_the_device_may_not_read(cam: SimulatedDevice) -> None:
    assert code_of(ask(cam, f"/device/v1/links/blobs/{OTHER}")) == (403, "blob_denied")
    assert code_of(cam.http.get(f"/device/v1/links/blobs/{OURS}")) == (401, "token_missing")
    absent = ask(cam, f"/device/v1/links/deltas/{EMPTY_SHA256}/{OURS}")
    assert code_of(absent) == (404, "delta_missing")


def test_a_link_ends(cam: SimulatedDevice, fleet: Fleet, clock: Any) -> None:
    found = link(cam)
    clock.advance(seconds=299)
    assert told(fleet, found) == [(204, ""), (200, "")]
    clock.advance(seconds=1)
    assert told(fleet, found) == [(401, "expired_token")] * 2


def test_a_link_ends_with_the_leave_to_read(cam: SimulatedDevice, fleet: Fleet) -> None:
    found = link(cam)
    fleet.assign("all", "1.1.0")
    assert told(fleet, found) == [(403, "blob_denied")] * 2


def test_a_revoked_device_has_neither_token_nor_link(cam: SimulatedDevice, fleet: Fleet) -> None:
    found, token = link(cam), {"Authorization": f"Bearer {cam.token}"}
    fleet.act("cam-1", "revoke")
    assert told(fleet, found) == [(401, "revoked")] * 2
    assert told(fleet, f"/blobs/{OURS}", **token) == [(401, "revoked")] * 2
    assert code_of(ask(cam, f"/device/v1/links/blobs/{OURS}")) == (401, "revoked")


def test_a_link_is_good_for_its_own_path_alone(cam: SimulatedDevice, fleet: Fleet) -> None:
    path, _, secret = link(cam).partition("?link=")
    for other in (f"/blobs/{OTHER}", f"/deltas/{EMPTY_SHA256}/{OURS}"):
        assert told(fleet, f"{other}?link={secret}") == [(401, "bad_token")] * 2
    as_token = {"Authorization": f"Bearer {secret}"}
    assert told(fleet, path, **as_token) == [(401, "bad_token")] * 2
    poll = fleet.client.get("/device/v1/directive", headers=as_token)
    assert code_of(poll) == (401, "bad_token")
    assert told(fleet, f"{path}?link={cam.token}") == [(401, "bad_token")] * 2


def test_a_link_with_any_character_changed_opens_nothing(
    cam: SimulatedDevice, fleet: Fleet
) -> None:
    path, _, secret = link(cam).partition("?link=")
    for place in range(len(secret)):
        changed = secret[:place] + ("a" if secret[place] != "a" else "b") + secret[place + 1 :]
        answer = fleet.client.get(f"/device/v1/may-read{path}?link={changed}")
        assert answer.status_code == 401, changed


@pytest.mark.parametrize("query", ["", "?link=", "?link=x", "?link=%00", "?link=%E2%82%AC.a.1.9.x"])
def test_what_is_no_link_is_refused(fleet: Fleet, query: str) -> None:
    answer = fleet.client.get(f"/device/v1/may-read/blobs/{OURS}{query}")
    assert answer.status_code in (400, 401, 422), answer.text
