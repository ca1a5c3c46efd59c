"""Devices on the page: what is typed wrong stays and is told beside its field; sorting; charts."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select

from pilotwave_protocol.sketch import Sketch
from pilotwave_server.context import Context
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.telemetry.tables import DeviceMetricRow
from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite

pytestmark = only_sqlite


@pytest.fixture
def page(fleet: Fleet, browser: httpx.Client, make_person: MakePerson) -> httpx.Client:
    """Somebody signed in, on a fleet whose `cam-1` is pinned to 1.0.0."""
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    fleet.device("cam-1", site="berlin")
    fleet.group("berlin", "site=berlin")
    pin = {"version": "1.0.0", "reason": "for the test"}
    done = fleet.operator.post("/api/v1/devices/cam-1/models/detector/pin", json=pin)
    assert done.is_success, done.text
    return browser


def post(page: httpx.Client, path: str, **fields: str) -> httpx.Response:
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.get("/devices/cam-1").text)
    assert csrf
    return page.post(path, data={"csrf": csrf.group(1), **fields})


def beside(answer: httpx.Response, field: str) -> str:
    found = re.search(rf'id="wrong-{field}"[^>]*>.*?</svg>([^<]+)<', answer.text, re.DOTALL)
    assert found, f"nothing beside {field}: {answer.text[-3000:]}"
    assert f'aria-describedby="wrong-{field}"' in answer.text
    return unescape(found.group(1)).strip()


@pytest.mark.parametrize("action", ["pin", "rollback"])
def test_without_a_reason_nothing_is_done_and_the_choice_stays(
    page: httpx.Client, action: str
) -> None:
    answer = post(page, f"/devices/cam-1/models/detector/{action}", version="1.1.0", reason="  ")
    assert answer.status_code == 422
    assert "Give a reason" in beside(answer, "reason-detector")
    assert "<option selected>1.1.0</option>" in answer.text


def test_a_version_that_is_refused_leaves_the_reason_typed(page: httpx.Client) -> None:
    answer = post(page, "/devices/cam-1/models/detector/pin", version="9.9.9", reason="I <like> it")
    assert answer.is_client_error
    assert "9.9.9" in beside(answer, "reason-detector")
    assert 'value="I &lt;like&gt; it"' in answer.text
    answer = post(page, "/devices/cam-1/models/detector/pin", reason="which?")
    assert "Choose the version" in beside(answer, "version-detector")


@pytest.mark.parametrize("labels", ["site", "site=berlin\nBad Key=1", "a=" + "x" * 300])
def test_labels_with_a_mistake_stay_as_they_were_typed(page: httpx.Client, labels: str) -> None:
    answer = post(page, "/devices/cam-1/labels", labels=labels)
    assert answer.status_code == 422
    assert beside(answer, "labels")
    typed = re.search(r"<textarea[^>]*>(.*?)</textarea>", answer.text, re.DOTALL)
    assert typed
    assert unescape(typed.group(1)) == labels


def test_what_is_done_is_told_in_the_language_of_the_page(page: httpx.Client) -> None:
    page.cookies.set("pilotwave_language", "zh-Hans")
    answer = post(page, "/devices/cam-1/models/detector/unpin")
    assert answer.status_code == 303
    assert "cam-1 重新跟随其所属组。" in page.get("/devices/cam-1").text


def test_a_selector_with_a_mistake_is_told_beside_it_and_sorting_is_kept(
    page: httpx.Client,
) -> None:
    answer = page.get("/devices", params={"selector": "site=(", "sort": "-agent"})
    assert answer.is_client_error
    assert 'value="site=("' in answer.text
    assert 'aria-describedby="wrong"' in answer.text
    assert 'name="sort" value="-agent"' in answer.text
    found = page.get("/devices", params={"selector": "site=berlin", "sort": "-last_seen"}).text
    assert 'aria-sort="descending"' in found
    assert (
        "sort=last_seen&amp;selector" in found
        or "selector=site%3Dberlin&amp;sort=last_seen" in found
    )
    assert page.get("/devices", params={"sort": "nonsense"}).status_code == 200


def test_metrics_become_charts_whatever_they_are_called(
    page: httpx.Client, context: Context
) -> None:
    now, sketch = context.clock(), Sketch()
    sketch.add(4.0, 10)
    at = now.timestamp()
    with context.db.write() as session:
        device = session.scalars(select(DeviceRow.id).where(DeviceRow.name == "cam-1")).one()
        kept = {"device_id": device, "model": "detector", "windows": 2, "sketch": sketch.to_plain()}
        kept["points"] = [[at - 60, 60, 5, 3.0, 4.0], [at, 60, 5, 5.0, 6.0]]
        rows = [
            {**kept, "metric": metric, "version": version, "updated_at": now - timedelta(seconds=n)}
            for metric in ("latency_ms", "error", "'\"><b>")
            for n, version in enumerate(("1.1.0", "1.0.0"))
        ]
        session.execute(insert(DeviceMetricRow), rows)
    text = page.get("/devices/cam-1").text
    assert text.count("data-chart=") == 3
    assert "<b>1.1.0" not in text
    assert "'\"><b>" not in text
    assert "1.0.0 p95" in text
    told = page.get("/api/v1/devices/cam-1/metrics").json()["metrics"]
    assert [point["mean"] for point in told[0]["points"]] == [3.0, 5.0]


@pytest.mark.parametrize(
    "path", ["/devices", "/devices/cam-2", "/devices?state=failing", "/groups/berlin"]
)
def test_a_device_that_refuses_its_orders_says_so_with_what_to_do(
    page: httpx.Client, fleet: Fleet, path: str
) -> None:
    device = fleet.device("cam-2", site="berlin")
    assert "refuses its orders</span>" not in page.get(path).text
    told = "this device's clock (2001-01-01T00:00:00Z) is behind the order"
    device.check_in(refusal={"reason": "not_yet_valid", "detail": told})
    shown = unescape(page.get(path).text)
    assert "refuses its orders</span>" in shown
    assert "this device's clock says 2001-01-01T00:00:00Z; set it" in shown
    device.check_in(refusal=None)
    assert "refuses its orders</span>" not in page.get(path).text


def test_since_when_a_device_is_reported_silent_is_on_its_page(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson, clock: Any
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    camera = fleet.device("cam-1")
    assert "Reported silent" not in browser.get("/devices/cam-1").text
    with fleet.context.db.write() as session:
        get_device(session, "cam-1").silent_since = clock()
    clock.advance(hours=2)
    assert "it has missed three check-ins." in browser.get("/devices/cam-1").text
    camera.check_in()
    assert "Reported silent" not in browser.get("/devices/cam-1").text
