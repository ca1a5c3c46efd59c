"""From an event to the receiver: signed, tried again with back-off, written down."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from pilotwave_protocol.messages.check_in import Installed, ModelReport
from pilotwave_protocol.states import ModelState
from pilotwave_server.app import create_app
from pilotwave_server.devices.silence_sweep import SilenceSweep
from pilotwave_server.settings import Settings
from pilotwave_server.webhooks.deliveries import TAKEN_S, WAITS_S
from tests.conftest import FakeClock
from tests.peers import receiver as peer
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.servers import run_in_thread

API = "/api/v1/webhooks"
HEALTHY = ModelReport("detector", ModelState.HEALTHY, Installed("1.0.0", "a" * 64, "onnx-fp32", 1))


def create(admin: httpx.Client, url: str, *types: str, name: str = "hook") -> str:
    answer = admin.post(API, json={"name": name, "url": url, "types": list(types)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def delivery(admin: httpx.Client, *, tries: int = 1, state: str = "", name: str = "hook") -> Any:
    """Wait until the newest delivery has had so many tries, each with its outcome."""
    ends = time.monotonic() + 30
    while True:
        items = admin.get(f"{API}/{name}/deliveries").json()["items"]
        newest = items[0] if items else None
        tried = newest and (newest["last_status"] or newest["last_error"])
        if tried and newest["tries"] == tries and state in ("", newest["state"]):
            return newest
        assert time.monotonic() < ends, items
        time.sleep(0.05)


def good(secret: str, call: peer.Call) -> bool:
    """Verify as docs/webhooks.md tells receivers to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    head = f"{call.headers['webhook-id']}.{call.headers['webhook-timestamp']}."
    made = hmac.new(key, head.encode() + call.body, hashlib.sha256).digest()
    wanted = "v1," + base64.b64encode(made).decode()
    return wanted in call.headers["webhook-signature"].split()


def test_an_event_is_sent_signed_and_a_type_not_asked_for_is_not(
    admin: httpx.Client, clock: FakeClock
) -> None:
    with peer.receiver() as receiver:
        secret = create(admin, receiver.url + "/in", "token.*")
        admin.post("/api/v1/groups", json={"name": "cams", "selector": "site"})
        admin.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})
        (call,) = receiver.wait_for(1)
        sent = delivery(admin, state="delivered")
    assert good(secret, call)
    assert not good(secret, peer.Call(call.path, call.headers, call.body + b" "))
    assert call.path == "/in"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["webhook-timestamp"] == str(int(clock().timestamp()))
    event = json.loads(call.body)
    assert event["type"] == "token.create"
    assert event["data"]["object"] == "token/ci"
    assert event["data"]["after"]["role"] == "viewer"
    assert call.headers["webhook-id"] == event["id"]
    assert (sent["tries"], sent["last_status"], sent["last_error"]) == (1, 204, None)


def test_what_devices_report_is_sent_too(fleet: Fleet, admin: httpx.Client) -> None:
    with peer.receiver() as receiver:
        create(admin, receiver.url, "device.switched", "device.enrol")
        device = fleet.device("cam-1")
        assert device.check_in(HEALTHY).status_code == 200
        calls = receiver.wait_for(2)
    events = {e["type"]: e for e in (json.loads(c.body) for c in calls)}
    assert events["device.switched"]["data"]["object"] == "device/cam-1"
    assert events["device.switched"]["data"]["after"]["version"] == "1.0.0"


def test_silence_is_sent_and_its_end(fleet: Fleet, admin: httpx.Client, clock: FakeClock) -> None:
    context, device = fleet.context, fleet.device("cam-1")
    sweep = SilenceSweep(context.db, context.settings, clock)
    with peer.receiver() as receiver:
        secret = create(admin, receiver.url, "device.silent", "device.heard")
        clock.advance(days=1)
        for _ in range(12):  # nobody looked for a day, so the device has an interval's grace
            sweep.look()
            clock.advance(seconds=90)
        receiver.wait_for(1)
        assert device.check_in().status_code == 200
        clock.advance(seconds=60)
        sweep.look()
        calls = receiver.wait_for(2)
    assert all(good(secret, call) for call in calls)
    told = {e["type"]: e["data"] for e in (json.loads(c.body) for c in calls)}
    assert set(told) == {"device.silent", "device.heard"}
    for data in told.values():
        assert (data["actor"], data["object"]) == ("server", "device/cam-1")
        assert data["after"] == {"devices": 1, "names": ["cam-1"]}


@only_sqlite
def test_a_failing_receiver_is_tried_again_later_and_later_and_then_given_up(
    admin: httpx.Client, clock: FakeClock
) -> None:
    with peer.receiver(peer.status(503)) as receiver:
        create(admin, receiver.url, "token.*")
        admin.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})
        for tries, wait in enumerate(WAITS_S, 1):
            found = delivery(admin, tries=tries)
            while (due := seconds_until_due(found, clock)) == TAKEN_S:  # it is being called
                found = delivery(admin, tries=tries)
            assert wait * 0.79 <= due <= wait * 1.21
            assert found["state"] == "waiting"
            assert found["last_error"] == "answered 503, expected 2xx"
            clock.advance(seconds=due + 1)
        found = delivery(admin, tries=len(WAITS_S) + 1, state="given_up")
        assert len({c.headers["webhook-id"] for c in receiver.calls}) == 1
        assert len(receiver.calls) == len(WAITS_S) + 1


def seconds_until_due(found: Any, clock: FakeClock) -> float:
    due = datetime.fromisoformat(found["due_at"].replace("Z", "+00:00"))
    return (due - clock()).total_seconds()


def test_one_that_was_given_up_may_be_sent_again(admin: httpx.Client, clock: FakeClock) -> None:
    with peer.receiver(peer.status(500), peer.says(peer.OK)) as receiver:
        create(admin, receiver.url, "token.*")
        admin.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})
        found = delivery(admin, tries=1)
        again = f"{API}/hook/deliveries/{found['id']}/again"
        assert admin.post(again).status_code == 202
        assert delivery(admin, state="delivered")["id"] == found["id"]
        first, second = receiver.wait_for(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


@only_sqlite
def test_a_receiver_that_stalls_holds_up_nobody_else(admin: httpx.Client) -> None:
    with peer.receiver(peer.stalls) as stalled, peer.receiver() as receiver:
        create(admin, stalled.url, "token.*", name="stalled")
        create(admin, receiver.url, "token.*", name="good")
        for number in range(20):
            admin.post("/api/v1/tokens", json={"name": f"ci-{number}", "role": "viewer"})
        receiver.wait_for(20, timeout_s=20)
        assert len(stalled.calls) < 20
        found = delivery(admin, name="good", state="delivered")
    assert found["tries"] == 1


@only_sqlite
def test_a_redirect_leads_nowhere(admin: httpx.Client) -> None:
    with peer.receiver() as inner:
        with peer.receiver(peer.status(302, f"Location: {inner.url}/secret")) as outer:
            create(admin, outer.url, "token.*")
            admin.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})
            assert "not followed" in delivery(admin, tries=1)["last_error"]
        assert inner.calls == []


@only_sqlite
def test_a_test_is_sent_whatever_the_types(admin: httpx.Client) -> None:
    with peer.receiver() as receiver:
        secret = create(admin, receiver.url, "rollout.*")
        made = admin.post(f"{API}/hook/test").json()
        (call,) = receiver.wait_for(1)
    assert good(secret, call)
    assert json.loads(call.body)["type"] == "webhook.test"
    assert call.headers["webhook-id"] == f"t{made['id']}"


@only_sqlite
def test_a_changed_secret_signs_beside_the_one_before(admin: httpx.Client) -> None:
    with peer.receiver() as receiver:
        old = create(admin, receiver.url, "rollout.*")
        new = admin.post(f"{API}/hook/secret").json()["secret"]
        admin.post(f"{API}/hook/test")
        (call,) = receiver.wait_for(1)
    assert good(old, call)
    assert good(new, call)


def test_while_it_is_off_nothing_is_kept_for_it(admin: httpx.Client) -> None:
    with peer.receiver() as receiver:
        create(admin, receiver.url, "token.*")
        admin.patch(f"{API}/hook", json={"enabled": False})
        admin.post("/api/v1/tokens", json={"name": "while-off", "role": "viewer"})
        time.sleep(1.2)
        admin.patch(f"{API}/hook", json={"enabled": True})
        admin.post("/api/v1/tokens", json={"name": "while-on", "role": "viewer"})
        calls = receiver.wait_for(1)
        time.sleep(0.7)
        assert len(receiver.calls) == 1
    assert json.loads(calls[0].body)["data"]["object"] == "token/while-on"


@only_sqlite
def test_no_secret_and_no_path_of_a_url_is_shown_later(
    admin: httpx.Client, viewer: httpx.Client
) -> None:
    secret = create(admin, "https://hooks.example.com/T000/secret-path")
    seen = admin.get(f"{API}/hook").text + admin.get(API).text
    log = viewer.get("/api/v1/events").text
    assert secret not in seen + log
    assert "secret-path" in seen
    assert "secret-path" not in log
    assert "https://hooks.example.com" in log


@only_sqlite
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_webhooks_are_for_admins(
    method: str, operator: httpx.Client, viewer: httpx.Client, publisher: httpx.Client
) -> None:
    body = {"name": "hook", "url": "https://example.com/"} if method == "POST" else None
    for client in (operator, viewer, publisher):
        assert client.request(method, API, json=body).status_code == 403


BAD = [
    ({"url": "ftp://example.com/"}, "bad_webhook_url"),
    ({"url": "https://a:b@example.com/"}, "bad_webhook_url"),
    ({"types": ["Rollout.*"]}, "bad_event_type"),
    ({"types": ["rollout"]}, "bad_event_type"),
    ({"types": ["rollout.*.x"]}, "bad_event_type"),
]


@only_sqlite
@pytest.mark.parametrize(("change", "code"), BAD)
def test_a_bad_webhook_is_refused_and_says_why(
    admin: httpx.Client, change: dict[str, Any], code: str
) -> None:
    body = {"name": "hook", "url": "https://example.com/", "types": ["*"], **change}
    answer = admin.post(API, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_name_is_taken_once(admin: httpx.Client) -> None:
    create(admin, "https://example.com/")
    answer = admin.post(API, json={"name": "hook", "url": "https://example.com/"})
    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_name_taken")
    assert admin.delete(f"{API}/hook").status_code == 204
    assert admin.get(f"{API}/hook").status_code == 404
    create(admin, "https://example.com/")


def test_two_servers_at_once_send_each_event_once(
    admin: httpx.Client, settings: Settings, clock: FakeClock
) -> None:
    """Both look at the same places and the same deliveries; comparing before setting decides."""
    with peer.receiver() as receiver, run_in_thread(create_app(settings, clock=clock)):
        create(admin, receiver.url, "token.*")
        for number in range(25):
            admin.post("/api/v1/tokens", json={"name": f"ci-{number}", "role": "viewer"})
        calls = receiver.wait_for(25)
        time.sleep(1.5)
        assert len(receiver.calls) == 25
    assert len({c.headers["webhook-id"] for c in calls}) == 25
