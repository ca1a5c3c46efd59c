"""What a device says of drift: an event with its sentence, an entry that needs attention, and a
picture of the share against its bound."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.check_in import DeviceEvent, Installed, MetricReport, ModelReport
from pilotwave_protocol.reference import Confidence, Edges, Reference
from pilotwave_protocol.sketch import Sketch
from pilotwave_protocol.states import ModelState
from pilotwave_server.dashboard import i18n
from pilotwave_server.dashboard.sentences import translated
from pilotwave_server.events.feed import START, newest, read_events
from pilotwave_server.events.types import check_types
from tests.conftest import FakeClock
from tests.server.dashboard.conftest import MakePerson, browser, make_person, sign_in
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet, fleet, published
from tests.server.registry.registry import onnx

__all__ = ["browser", "fleet", "make_person", "published"]
LOW = (
    "16 of the last 24 inputs had a confidence below 0.6; of the reference's 500 inputs 10.0% had, "
    "and at most 16.9% may"
)
OUTSIDE = (
    "20 of the last 40 inputs had a brightness outside 0.2 to 0.8; of the reference's 500 inputs "
    "2.0% had, and at most 4.9% may"
)
REFERENCE = Reference(
    500, Confidence(below=0.6, low=50, output="probs"), numbers={"brightness": Edges(0.2, 0.8, 10)}
)


@pytest.fixture
def running(fleet: Fleet) -> ModelReport:
    """What a device says that runs 1.3.0, a version with a reference."""
    files = {"model.onnx": onnx("detector 1.3.0"), "reference.json": REFERENCE.to_bytes()}
    manifest = fleet.registry.manifest("detector", "1.3.0", files)
    signed = fleet.registry.signed_with_version(manifest)
    fleet.registry.hand_in("detector", signed, manifest)
    variant = manifest.variants[0].name
    current = Installed("1.3.0", sha256_hex(manifest.to_bytes()), variant, manifest.counter)
    return ModelReport("detector", ModelState.HEALTHY, current=current)


def drifts(
    device: SimulatedDevice, running: ModelReport, clock: FakeClock, number: int = 1
) -> None:
    event = DeviceEvent(number, clock(), "drifted", "detector", "1.3.0", "low_confidence", LOW)
    assert device.check_in(running, events=(event,)).status_code == 200


def attention(fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.operator.get("/api/v1/attention").json()["items"]
    return [item for item in found if item["state"] == "drifting"]


def test_drift_is_told_with_its_sentence_and_rolls_nothing_back(
    fleet: Fleet, running: ModelReport, clock: FakeClock
) -> None:
    device = fleet.device("cam-1")
    assert device.check_in(running).status_code == 200
    drifts(device, running, clock)
    (became, *_) = fleet.operator.get("/api/v1/devices/cam-1/history").json()["items"]
    assert (became["became"], became["reason"], became["detail"]) == (
        *("drifted", "low_confidence"),
        LOW,
    )
    with fleet.context.db.read() as session:  # what streams and webhooks are sent
        types = check_types(["device.drifted"])
        (event,), _ = read_events(session, types, after=START, until=newest(session), limit=9)
    document = json.loads(event.document)
    assert document["type"] == "device.drifted"
    assert document["data"]["object"] == "device/cam-1"
    assert document["data"]["after"] == {
        "model": "detector",
        "version": "1.3.0",
        "reason": "low_confidence",
        "detail": LOW,
    }
    found = fleet.operator.get("/api/v1/devices/cam-1").json()
    assert found["models"][0]["state"] == "healthy"


def test_devices_that_drift_need_attention_until_they_stop_or_run_another_version(
    fleet: Fleet, running: ModelReport, clock: FakeClock
) -> None:
    first, second = fleet.device("cam-1"), fleet.device("cam-2")
    assert attention(fleet) == []
    drifts(first, running, clock)
    (one,) = attention(fleet)
    assert one["title"] == "1 device meets other inputs than its model's reference"
    assert one["object"] == "devices/drifting"
    fleet.operator.post("/api/v1/attention/acknowledge", json={"key": one["key"]})
    clock.advance(hours=1)
    drifts(second, running, clock)
    (two,) = attention(fleet)
    assert two["title"].startswith("2 devices meet")
    assert two["acknowledged_by"] is None
    names = fleet.operator.get("/api/v1/devices", params={"standing": "drifting"}).json()["items"]
    assert [device["name"] for device in names] == ["cam-1", "cam-2"]
    assert first.check_in(ModelReport("detector", ModelState.IDLE)).status_code == 200
    assert attention(fleet)[0]["title"].startswith("1 device ")
    clock.advance(hours=47)
    assert attention(fleet)
    clock.advance(hours=2)
    assert attention(fleet) == []


def test_the_page_shows_the_share_against_its_bound(
    fleet: Fleet,
    running: ModelReport,
    clock: FakeClock,
    browser: httpx.Client,
    make_person: MakePerson,
) -> None:
    device = fleet.device("cam-1")
    for window in range(2):
        low = Sketch()
        low.add(0.0, 8)
        low.add(1.0, 2)
        start = clock()
        clock.advance(minutes=5)
        told = MetricReport(window + 1, "detector", "1.3.0", "low_confidence", start, clock(), low)
        assert device.check_in(running, metrics=(told,)).status_code == 200
    drifts(device, running, clock)
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    page = browser.get("/devices/cam-1").text
    assert LOW in unescape(page)
    charts = [json.loads(unescape(c)) for c in re.findall(r"data-chart='([^']+)'", page)]
    (chart,) = charts
    values = {s["name"]: s["values"] for s in chart["series"]}
    assert chart["unit"] == "%"
    assert values["1.3.0"] == [20.0, 20.0]
    assert values["(bound)"] == pytest.approx([16.9336] * 2, abs=0.01)
    assert "at most" in browser.get("/devices/cam-1/health").text
    assert "cam-1" in browser.get("/devices?state=drifting").text


@pytest.mark.parametrize("sentence", [LOW, OUTSIDE])
def test_its_sentence_is_read_in_chinese(sentence: str) -> None:
    told = translated(sentence, i18n.translations("zh-Hans").gettext)
    assert told is not None
    assert "inputs" not in told
    for number in re.findall(r"\d[\d.]*%?", sentence):
        assert number in told


def test_a_clock_that_is_ahead_drifts_no_longer_than_any_other(
    fleet: Fleet, running: ModelReport, clock: FakeClock
) -> None:
    device = fleet.device("cam-1")
    ahead = clock() + timedelta(days=900)
    event = DeviceEvent(1, ahead, "drifted", "detector", "1.3.0", "low_confidence", LOW)
    assert device.check_in(running, events=(event,)).status_code == 200
    assert attention(fleet)
    clock.advance(hours=49)
    assert attention(fleet) == []
