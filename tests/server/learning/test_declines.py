"""Devices say that they take no part, and why."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.decline import DECLINE_TYPE, Decline, Why
from tests.server.device_api.peer import FLEET, SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet
from tests.server.learning.test_rounds import (
    cams,
    plan_of,
    published,
    send,
    start,
    the_round,
    update,
    waiting,
)

__all__ = ["cams", "published"]
pytestmark = pytest.mark.long


def decline(
    here: Fleet, cam: SimulatedDevice, why: Why = Why.TIMED_OUT, *,
    key: Ed25519PrivateKey | None = None, raw: bytes | None = None, **changes: Any,
) -> httpx.Response:  # fmt: skip
    given = {
        "fleet": FLEET, "device": cam.name, "model": "detector", "round": 1, "why": why,
        "plan": sha256_hex(plan_of(here.registry).to_bytes()),
    }  # fmt: skip
    payload = Decline(**{**given, **changes}).to_bytes() if raw is None else raw
    headers = {"Authorization": f"Bearer {cam.token}", "Content-Type": "application/json"}
    envelope = dsse.sign(DECLINE_TYPE, payload, key or cam.key)
    return cam.http.post("/device/v1/declines", content=envelope, headers=headers)


def test_reasons_are_counted_the_last_word_of_each_device(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    start(fleet)
    assert all(waiting(cam) for cam in cams)
    assert decline(fleet, cams[0], Why.TOO_FEW_EXAMPLES, examples=5).status_code == 204
    assert decline(fleet, cams[1], Why.OUT_OF_MEMORY).status_code == 204
    found = the_round(fleet)
    assert [found[key] for key in ("waiting", "declined", "failed")] == [2, 1, 1]
    # who had too few is still asked, who failed is not
    assert [len(waiting(cam)) for cam in cams[:2]] == [1, 0]
    assert send(cams[0], update(fleet, cams[0])).status_code == 204
    assert decline(fleet, cams[0], Why.OVER).status_code == 204
    found = the_round(fleet)
    assert [found[key] for key in ("devices", "declined", "failed")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"key": Ed25519PrivateKey.generate()}, (422, "bad_update")),
        ({"device": "cam-1"}, (422, "bad_update")),
        ({"fleet": "another"}, (422, "bad_update")),
        ({"examples": 5}, (422, "bad_update")),
        ({"raw": b"{}"}, (422, "bad_update")),
        ({"plan": "c" * 64}, (409, "round_over")),
        ({"round": 2}, (409, "round_over")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_no_word_of_this_device_is_refused(
    fleet: Fleet, cams: list[SimulatedDevice], changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    start(fleet)
    assert waiting(cams[0])
    assert code_of(decline(fleet, cams[0], **changes)) == expected
    assert the_round(fleet)["waiting"] == 1
