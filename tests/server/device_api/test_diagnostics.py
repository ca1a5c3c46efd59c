"""Diagnostics: asked for by operators, answered by the device alone, forgotten after a week."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.messages.diagnostics import (
    DIAGNOSTICS_TYPE,
    MAX_DIAGNOSTICS_BYTES,
    Diagnostics,
    DiagnosticsWish,
)
from pilotwave_server.diagnostics.service import KEEP, forget
from tests.server.device_api.peer import FLEET, SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet

READER, OTHER = "ab" * 32, "cd" * 32
PATH = "/api/v1/devices/cam-1/diagnostics"


@pytest.fixture
def cam(fleet: Fleet) -> SimulatedDevice:
    return fleet.device("cam-1")


def ask(fleet: Fleet, reader: str = READER) -> int:
    answer = fleet.operator.post(PATH, json={"reader": reader})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def wish(cam: SimulatedDevice) -> dict[str, Any] | None:
    """What the device is asked for with its next check-in."""
    answer = cam.check_in()
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] | None = answer.json()["diagnostics"]
    return found


def answer_of(cam: SimulatedDevice, number: int, **changes: Any) -> Diagnostics:
    made = Diagnostics(FLEET, cam.name, DiagnosticsWish(number, READER), cam.public_key, b"sealed")
    return replace(made, **changes)


def send(
    cam: SimulatedDevice, found: Diagnostics, key: Ed25519PrivateKey | None = None
) -> httpx.Response:
    raw = dsse.sign(DIAGNOSTICS_TYPE, found.to_bytes(), key or cam.key)
    return post(cam, raw)


def post(cam: SimulatedDevice, raw: bytes) -> httpx.Response:
    given = {"Authorization": f"Bearer {cam.token}", "Content-Type": "application/json"}
    return cam.http.post("/device/v1/diagnostics", content=raw, headers=given)


def states(fleet: Fleet) -> list[str]:
    return [row["state"] for row in fleet.operator.get(PATH).json()["items"]]


def test_an_answer_is_kept_as_the_device_signed_it(fleet: Fleet, cam: SimulatedDevice) -> None:
    assert wish(cam) is None
    number = ask(fleet)
    assert wish(cam) == {"id": number, "reader": READER}
    assert code_of(fleet.operator.get(f"{PATH}/{number}")) == (404, "diagnostics_unknown")
    raw = dsse.sign(DIAGNOSTICS_TYPE, answer_of(cam, number).to_bytes(), cam.key)
    assert post(cam, raw).status_code == 204
    assert states(fleet) == ["answered"]
    assert fleet.operator.get(f"{PATH}/{number}").content == raw
    assert wish(cam) is None
    assert code_of(post(cam, raw)) == (422, "bad_diagnostics")  # a second answer to the same


def test_a_refusal_says_why(fleet: Fleet, cam: SimulatedDevice) -> None:
    number = ask(fleet)
    assert send(cam, answer_of(cam, number, sealed=b"", refused="not named")).status_code == 204
    (row,) = fleet.operator.get(PATH).json()["items"]
    assert (row["state"], row["detail"]) == ("refused", "not named")
    assert wish(cam) is None


def test_a_later_wish_takes_the_place_of_one_that_is_open(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    first, second = ask(fleet), ask(fleet, OTHER)
    assert wish(cam) == {"id": second, "reader": OTHER}
    assert states(fleet) == ["waiting", "replaced"]
    assert code_of(send(cam, answer_of(cam, first))) == (422, "bad_diagnostics")


def test_only_the_device_answers_and_only_what_is_asked(fleet: Fleet, cam: SimulatedDevice) -> None:
    number, other = ask(fleet), fleet.device("cam-2")
    good = answer_of(cam, number)
    for sender, found, key in (
        (cam, good, Ed25519PrivateKey.generate()),  # somebody who has the token only
        (other, good, cam.key),  # another device
        (other, replace(good, device="cam-2"), other.key),
        (cam, replace(good, public_key="ef" * 32), cam.key),
        (cam, replace(good, wish=DiagnosticsWish(number, OTHER)), cam.key),
        (cam, replace(good, wish=DiagnosticsWish(number + 1, READER)), cam.key),
        (cam, replace(good, refused="both"), cam.key),
        (cam, replace(good, sealed=b""), cam.key),
    ):
        assert code_of(send(sender, found, key)) == (422, "bad_diagnostics"), found
    assert code_of(post(cam, b"{}")) == (422, "bad_diagnostics")
    assert states(fleet) == ["waiting"]
    assert wish(cam) == {"id": number, "reader": READER}


def test_a_stranger_sends_nothing_and_nobody_too_much(fleet: Fleet, cam: SimulatedDevice) -> None:
    ask(fleet)
    cam.check_in()
    assert post(cam, bytes(MAX_DIAGNOSTICS_BYTES + 1)).status_code == 413
    cam.token = cam.token[:-1] + ("A" if cam.token[-1] != "A" else "B")
    assert post(cam, b"{}").status_code == 401


@pytest.mark.parametrize("reader", ["", "ab" * 31, "AB" * 32, "zz" * 32])
def test_a_reader_that_is_no_key_is_refused(
    fleet: Fleet, cam: SimulatedDevice, reader: str
) -> None:
    assert fleet.operator.post(PATH, json={"reader": reader}).status_code == 422


def test_a_device_that_cannot_answer_is_not_asked(fleet: Fleet, cam: SimulatedDevice) -> None:
    unknown = PATH.replace("cam-1", "cam-9")
    assert fleet.operator.post(unknown, json={"reader": READER}).status_code == 404
    fleet.operator.post("/api/v1/devices/cam-1/revoke")
    answer = fleet.operator.post(PATH, json={"reader": READER})
    assert code_of(answer) == (409, "wrong_state")


def test_a_wish_is_withdrawn_with_its_answer(fleet: Fleet, cam: SimulatedDevice) -> None:
    number = ask(fleet)
    assert fleet.operator.delete(f"{PATH}/{number}").status_code == 204
    assert wish(cam) is None
    assert states(fleet) == []
    assert code_of(fleet.operator.delete(f"{PATH}/{number}")) == (404, "diagnostics_unknown")


def test_all_is_forgotten_after_a_week(fleet: Fleet, cam: SimulatedDevice) -> None:
    ask(fleet)
    with fleet.context.db.write() as session:
        forget(session, now=fleet.context.clock() + KEEP)
    assert states(fleet) == ["waiting"]
    with fleet.context.db.write() as session:
        forget(session, now=fleet.context.clock() + 2 * KEEP)
    assert states(fleet) == []
    assert wish(cam) is None
