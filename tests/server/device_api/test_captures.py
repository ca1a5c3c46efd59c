"""Captured cases at the server: sealed, kept once, bounded, deleted by one request."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.case import CASE_TYPE, MAX_CASE_BYTES, Case, join_case
from pilotwave_server.captures.service import Bounds, CapturesFull, forget, take
from tests.server.device_api.peer import FLEET, SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet

READER = "ab" * 32
PATH = "/api/v1/captures"
AT = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def cam(fleet: Fleet) -> SimulatedDevice:
    return fleet.device("cam-1")


def case_of(cam: SimulatedDevice, sealed: bytes, **changes: Any) -> Case:
    said = (FLEET, cam.name, cam.public_key, READER, "detector", "1.0.0", "onnx", "uniform", AT)
    return replace(Case(*said, sha256_hex(sealed)), **changes)


def signed(
    cam: SimulatedDevice, sealed: bytes, key: Ed25519PrivateKey | None = None, **changes: Any
) -> bytes:
    statement = case_of(cam, sealed, **changes).to_bytes()
    return join_case(dsse.sign(CASE_TYPE, statement, key or cam.key), sealed)


def post(cam: SimulatedDevice, raw: bytes) -> httpx.Response:
    given = {"Authorization": f"Bearer {cam.token}", "Content-Type": "application/octet-stream"}
    return cam.http.post("/device/v1/captures", content=raw, headers=given)


def rows(fleet: Fleet, **meant: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.operator.get(PATH, params=meant).json()["items"]
    return found


def test_a_case_is_kept_as_the_device_sent_it_and_once(fleet: Fleet, cam: SimulatedDevice) -> None:
    raw = signed(cam, b"sealed")
    for _ in range(3):
        assert post(cam, raw).status_code == 204
    # the same case, signed once more after a power cut
    assert post(cam, signed(cam, b"sealed", at=AT)).status_code == 204
    (row,) = rows(fleet)
    assert (row["device"], row["model"], row["reason"]) == ("cam-1", "detector", "uniform")
    assert fleet.operator.get(f"{PATH}/{row['id']}").content == raw


def test_only_the_device_sends_its_cases(fleet: Fleet, cam: SimulatedDevice) -> None:
    other = fleet.device("cam-2")
    for sender, raw in (
        (cam, signed(cam, b"sealed", Ed25519PrivateKey.generate())),
        (other, signed(cam, b"sealed")),
        (other, signed(other, b"sealed", device="cam-1")),
        (cam, signed(cam, b"sealed", public_key="ef" * 32)),
        (cam, signed(cam, b"sealed", id="ef" * 32)),
        (cam, signed(cam, b"sealed") + b"more"),
        (cam, signed(cam, b"sealed", reason="No Word")),
        (cam, b"{}"),
        (cam, b""),
    ):
        assert code_of(post(sender, raw)) == (422, "bad_case"), raw
    assert rows(fleet) == []


def test_a_stranger_sends_nothing_and_nobody_too_much(fleet: Fleet, cam: SimulatedDevice) -> None:
    assert post(cam, bytes(MAX_CASE_BYTES + 1)).status_code == 413
    cam.token = cam.token[:-1] + ("A" if cam.token[-1] != "A" else "B")
    assert post(cam, signed(cam, b"sealed")).status_code == 401
    assert rows(fleet) == []


def test_a_flood_ends_at_the_bounds_of_the_device_and_of_the_fleet(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    other, now = fleet.device("cam-2"), fleet.context.clock()
    said: list[tuple[str, int]] = []

    def kept_of(device: SimulatedDevice, bounds: Bounds) -> int:
        for n in range(1000):
            raw = signed(device, b"%d" % n)
            try:
                with fleet.context.db.write() as session:
                    take(session, raw, device=device.name, bounds=bounds, now=now)
            except CapturesFull as full:
                said.append((full.code, int(full.headers["Retry-After"])))
                return n
        raise AssertionError("no bound held")

    # small ones count as 4 KiB each
    assert kept_of(cam, Bounds(of_device=10 * 4096, of_fleet=1 << 30)) == 10
    assert kept_of(other, Bounds(of_device=1 << 30, of_fleet=15 * 4096)) == 5
    assert len(rows(fleet, limit=100)) == 15
    assert said == [("captures_full", 3600)] * 2


def test_one_request_deletes_what_is_meant(fleet: Fleet, cam: SimulatedDevice) -> None:
    other = fleet.device("cam-2")
    for device in (cam, other):
        for n in range(3):
            reason = "low_score" if n else "uniform"
            assert post(device, signed(device, b"%d" % n, reason=reason)).status_code == 204
    assert len(rows(fleet, reason="low_score")) == 4
    assert fleet.operator.delete(PATH).status_code == 422  # which?
    gone = fleet.operator.delete(PATH, params={"device": "cam-1", "reason": "low_score"})
    assert gone.json() == {"deleted": 2}
    first = rows(fleet)[-1]["id"]
    assert fleet.operator.delete(PATH, params={"id": first}).json() == {"deleted": 1}
    assert code_of(fleet.operator.get(f"{PATH}/{first}")) == (404, "case_unknown")
    assert {row["device"] for row in rows(fleet)} == {"cam-2"}
    assert fleet.operator.delete(PATH, params={"all": True}).json() == {"deleted": 3}
    assert rows(fleet) == []


def test_cases_are_forgotten_in_time(fleet: Fleet, cam: SimulatedDevice) -> None:
    post(cam, signed(cam, b"sealed"))
    keep, now = timedelta(days=30), fleet.context.clock()
    for later, left in ((keep, 1), (keep * 2, 0)):
        with fleet.context.db.write() as session:
            forget(session, keep=keep, now=now + later)
        assert len(rows(fleet)) == left
