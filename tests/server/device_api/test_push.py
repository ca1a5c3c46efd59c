"""WebSockets of devices: who is let in, who is called when, and who is thrown out."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pilotwave_protocol.push import within_of
from pilotwave_server.app import create_app
from pilotwave_server.context import Context
from pilotwave_server.device_api.push import listeners as desks
from pilotwave_server.device_api.push.setup import Push
from pilotwave_server.device_api.push.websocket import MAX_FRAMES, REPLACED, REVOKED
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.settings import Settings
from tests.conftest import FakeClock
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.servers import run_in_thread

SOON_S = 20.0
PACED = """\
name: paced
waves:
  - percent: 100%
pace: {max_in_flight: 1}
"""
QUIET_S = 0.7


@contextlib.contextmanager
def channel(
    fleet: Fleet,
    device: SimulatedDevice,
    *,
    token: str | None = None,
    path: str = "/device/v1/push",
    at: str = "",
) -> Iterator[ClientConnection]:
    """A WebSocket as a device opens it, at the server `at` or the fleet's first."""
    headers = {"Authorization": f"Bearer {device.token if token is None else token}"}
    url = "ws" + (at or str(fleet.client.base_url)).rstrip("/").removeprefix("http") + path
    with connect(
        url, additional_headers=headers, compression=None, proxy=None, ping_interval=None
    ) as opened:
        yield opened


def call(opened: ClientConnection) -> float:
    """Wait for a call and return its seconds."""
    said = opened.recv(SOON_S)
    within = within_of(said.encode() if isinstance(said, str) else said)
    assert within is not None, said
    return within


def is_quiet(opened: ClientConnection) -> bool:
    try:
        opened.recv(QUIET_S)
    except TimeoutError:
        return True
    return False


def refusal(fleet: Fleet, device: SimulatedDevice, **given: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused, channel(fleet, device, **given):
        pass
    response = refused.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)["code"]


def closed_with(opened: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        opened.recv(SOON_S)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def on_the_loop(context: Context, what: Callable[[], object]) -> None:
    """Do something on the server's event loop, and wait for it."""
    done = threading.Event()

    def do() -> None:
        what()
        done.set()

    context.loop.call_soon_threadsafe(do)
    assert done.wait(SOON_S)


def test_a_change_calls_the_devices_that_it_concerns_and_no_other(fleet: Fleet) -> None:
    berlin, paris = fleet.device("cam-1", site="berlin"), fleet.device("cam-2", site="paris")
    fleet.group("berlin", "site=berlin")
    with channel(fleet, berlin) as near, channel(fleet, paris) as far:
        fleet.assign("berlin", "1.0.0")
        assert call(near) == 0.0
        assert berlin.poll().status_code == 200
        assert is_quiet(far)
        fleet.assign("berlin", "1.0.0")  # says again what is said
        assert is_quiet(near)


def test_a_word_for_one_device_calls_that_one(fleet: Fleet) -> None:
    one, other = fleet.device("cam-1"), fleet.device("cam-2")
    with channel(fleet, one) as near, channel(fleet, other) as far:
        path = "/api/v1/devices/cam-1/models/detector/pin"
        answer = fleet.operator.post(path, json={"version": "1.1.0", "reason": "a trial"})
        assert answer.status_code == 200, answer.text
        assert call(near) == 0.0
        assert is_quiet(far)


@only_sqlite
def test_what_another_process_changes_is_heard_of_here(fleet: Fleet, settings: Settings) -> None:
    cam = fleet.device()
    fleet.group("all", "*")
    with channel(fleet, cam) as opened, run_in_thread(create_app(settings)) as second:
        answer = fleet.operator.put(
            f"{second.url}/api/v1/groups/all/baselines/detector", json={"version": "1.0.0"}
        )
        assert answer.status_code == 200, answer.text
        assert call(opened) == 0.0


@only_sqlite
def test_many_at_once_are_told_to_come_spread(fleet: Fleet, context: Context) -> None:
    cams = [fleet.device(f"cam-{n}") for n in range(5)]
    fleet.group("all", "*")
    context.get(Push).desks["websocket"]._rate = 2.0
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(channel(fleet, cam)) for cam in cams]
        fleet.assign("all", "1.0.0")
        assert [call(one) for one in opened] == [2.0] * 5


@only_sqlite
def test_who_has_no_good_token_is_refused_before_there_is_a_channel(
    fleet: Fleet, clock: Any
) -> None:
    cam = fleet.device()
    assert refusal(fleet, cam, token="") == (401, "bad_token")
    assert refusal(fleet, cam, token=cam.token[:-2] + "AA") == (401, "bad_token")
    assert refusal(fleet, cam, token="x" * 5000) == (401, "bad_token")
    assert refusal(fleet, cam, path="/device/v1/other") == (404, "no_such_channel")
    # a token in the URL, which ends in logs, is none
    with_query = f"/device/v1/push?token={cam.token}"
    assert refusal(fleet, cam, token="", path=with_query)[0] in (401, 404)
    clock.now += timedelta(hours=2)
    assert refusal(fleet, cam) == (401, "expired_token")


def test_a_revoked_device_loses_its_channel(fleet: Fleet) -> None:
    cam = fleet.device()
    with channel(fleet, cam) as opened:
        assert fleet.act("cam-1", "revoke").status_code == 200
        assert closed_with(opened) == REVOKED
    assert refusal(fleet, cam) == (401, "revoked")


@only_sqlite
def test_a_second_channel_takes_the_place_of_the_first(fleet: Fleet) -> None:
    cam = fleet.device()
    fleet.group("all", "*")
    with channel(fleet, cam) as first, channel(fleet, cam) as second:
        assert closed_with(first) == REPLACED
        fleet.assign("all", "1.0.0")
        assert call(second) == 0.0


@only_sqlite
@pytest.mark.parametrize(
    ("said", "codes"),
    [
        ("poll 0.00", {1008}),  # a device has nothing to say
        (b"\x00" * 100, {1008}),
        ("x" * 100_000, {1009, 1008}),  # nor at length
    ],
)
def test_a_device_that_talks_is_thrown_out(
    fleet: Fleet, said: str | bytes, codes: set[int]
) -> None:
    cam = fleet.device()
    with channel(fleet, cam) as opened:
        opened.send(said)
        assert closed_with(opened) in codes


@only_sqlite
def test_a_flood_of_pings_is_cut_off(fleet: Fleet, context: Context) -> None:
    cam = fleet.device()
    with channel(fleet, cam) as opened:
        with contextlib.suppress(ConnectionClosed):
            # no more than the server reads: what is left unread resets the line, and that may
            # overtake the last frame
            for _ in range(MAX_FRAMES + 1):
                opened.ping()
        assert closed_with(opened) == 1008
    ends = time.monotonic() + SOON_S
    while context.get(Push).desks["websocket"].listeners:
        assert time.monotonic() < ends
        time.sleep(0.02)


@only_sqlite
def test_pings_are_answered_and_the_silent_are_dropped(fleet: Fleet, context: Context) -> None:
    door = context.get(Push).door
    assert door is not None
    cam = fleet.device()
    with channel(fleet, cam) as opened:
        assert opened.ping().wait(SOON_S)
        on_the_loop(context, door._sweep)
        assert opened.ping().wait(SOON_S), "one that was heard stays"
        (session,) = door.sessions
        session.heard -= 1e6
        on_the_loop(context, door._sweep)
        with pytest.raises(ConnectionClosed):
            opened.recv(SOON_S)


@only_sqlite
def test_no_more_channels_than_the_settings_allow(fleet: Fleet, context: Context) -> None:
    door = context.get(Push).door
    assert door is not None
    one, other = fleet.device("cam-1"), fleet.device("cam-2")
    door._limit = 1
    with channel(fleet, one) as opened:
        assert refusal(fleet, other) == (503, "too_many_channels")
        assert opened.ping().wait(SOON_S)
    door._limit, door._allowance, door._per_second = 10, 0.0, 0
    assert refusal(fleet, other) == (503, "too_many_handshakes")


@only_sqlite
def test_a_paced_rollout_reaches_devices_that_seldom_poll(fleet: Fleet, monkeypatch: Any) -> None:
    monkeypatch.setattr(desks, "TEND_S", 0.2)
    cam = fleet.device("cam-1")
    fleet.group("all", "*")
    with channel(fleet, cam) as opened:
        answer = fleet.operator.post(
            "/api/v1/rollouts",
            json={
                "model": "detector",
                "version": "1.1.0",
                "group": "all",
                "start": True,
                "policy_text": PACED,
            },
        )
        assert answer.status_code == 201, answer.text
        assert call(opened) == 0.0
        assert cam.poll().status_code == 200


@only_sqlite
def test_the_terms_of_push_come_with_the_answer_to_a_check_in(fleet: Fleet) -> None:
    push = fleet.device().check_in().json()["push"]
    assert push == {"poll_interval_s": 900, "ping_s": 240, "spread_s": 1}


@only_sqlite
def test_the_operator_sees_which_channel_lives(fleet: Fleet) -> None:
    cam = fleet.device()
    shown = "/api/v1/devices/cam-1"
    assert fleet.operator.get(shown).json()["push"] is None
    with channel(fleet, cam):
        assert fleet.operator.get(shown).json()["push"] == "websocket"


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_what_another_process_may_hold_is_unknown_here(
    fleet: Fleet, context: Context, settings: Settings, clock: FakeClock
) -> None:
    cam, shown = fleet.device(), "/api/v1/devices/cam-1"
    assert fleet.operator.get(shown).json()["push"] is None
    with run_in_thread(create_app(settings, clock=clock)) as other:
        context.get(Heartbeat).beat()
        with channel(fleet, cam, at=other.url):
            assert fleet.operator.get(shown).json()["push"] == "unknown"
        with channel(fleet, cam):
            assert fleet.operator.get(shown).json()["push"] == "websocket"
    context.get(Heartbeat).beat()
    assert fleet.operator.get(shown).json()["push"] is None
