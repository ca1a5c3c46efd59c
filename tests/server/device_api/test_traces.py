"""What a device may say of traces: nothing but which span its report follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pilotwave_protocol.states import ModelState
from pilotwave_protocol.tracing import HEADER, TraceContext, parse_traces
from pilotwave_server.device_api import traces
from pilotwave_server.errors import BadSetting
from pilotwave_server.settings import Settings
from pilotwave_server.tracing import Tracing
from tests.peers.collector import Collector, collecting
from tests.server.device_api.peer import SimulatedDevice, report
from tests.server.fleet_fixtures import Fleet

POLICY = "name: quick\nwaves:\n  - name: all\n    percent: 100\n"
CI = TraceContext("c" * 32, "d" * 16)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as found:
        yield found


@pytest.fixture
def settings(settings: Settings, collector: Collector) -> Settings:
    return settings.model_copy(update={"otlp_endpoint": collector.url})


def rolled_out(fleet: Fleet, **headers: str) -> SimulatedDevice:
    """A device that is offered a version by a rollout."""
    cam = fleet.device(site="here")
    fleet.group("here", "site=here")
    wish = {"group": "here", "model": "detector", "version": "1.1.0", "policy_text": POLICY}
    answer = fleet.operator.post("/api/v1/rollouts", json={**wish, "start": True}, headers=headers)
    assert answer.status_code == 201, answer.text
    deadline = time.monotonic() + 20
    while fleet.operator.get("/api/v1/rollouts/r1").json()["wave"] != 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return cam


def offered(cam: SimulatedDevice) -> httpx.Response:
    """The answer to the poll that brings the version."""
    deadline = time.monotonic() + 20
    while (answer := cam.poll()).status_code != 200 or "detector" not in cam.runs():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cam.etag = ""
    return cam.poll() if HEADER not in answer.headers else answer


def report_beside(cam: SimulatedDevice, said: str) -> httpx.Response:
    raw = cam.check_in_envelope(report("1.1.0", ModelState.HEALTHY))
    headers = {"Content-Type": "application/json", HEADER: said}
    return cam.http.post("/device/v1/check-in", content=raw, headers=headers)


def sent(fleet: Fleet, collector: Collector, name: str, *, least: int = 0) -> list[Any]:
    """The spans of that name, once all that waits was sent and there are as many."""
    spans = fleet.context.get(Tracing).spans
    assert spans is not None
    deadline = time.monotonic() + 20
    while True:
        spans._provider.force_flush()
        if len(found := collector.named(name)) >= least:
            return found
        assert time.monotonic() < deadline, collector.spans
        time.sleep(0.05)


def test_a_rollout_is_in_the_trace_of_the_request_that_created_it(
    fleet: Fleet, collector: Collector
) -> None:
    cam = rolled_out(fleet, traceparent=str(CI))
    context = parse_traces(offered(cam).headers[HEADER])["detector"]
    assert context.trace_id == CI.trace_id
    (created,) = sent(fleet, collector, "create rollout", least=1)
    assert (created.trace, created.parent) == (CI.trace_id, CI.span_id)
    (wave,) = sent(fleet, collector, "open wave", least=1)
    assert wave.parent == created.id
    assert {span.parent for span in collector.named("serve directive")} == {wave.id}
    assert report_beside(cam, f"detector={context}").status_code == 200
    (told,) = sent(fleet, collector, "report", least=1)
    assert (told.trace, told.parent) == (CI.trace_id, context.span_id)
    assert told.attributes["pilotwave.state"] == "healthy"


@pytest.mark.parametrize(
    "said",
    [
        f"detector={TraceContext('e' * 32, 'f' * 16)}",  # another trace
        f"other={CI}",
        "detector=00-" + "c" * 32,
        "x" * 6000,
        f"detector={str(CI)[:-2]}00",
        "~,=,=,detector=~",
    ],
)
def test_what_a_device_makes_up_is_in_no_trace_and_its_report_counts(
    fleet: Fleet, collector: Collector, said: str
) -> None:
    cam = rolled_out(fleet, traceparent=str(CI))
    offered(cam)
    assert report_beside(cam, said).status_code == 200
    assert sent(fleet, collector, "report") == []
    shown = fleet.operator.get("/api/v1/devices/cam-1").json()
    assert shown["models"][0]["current_version"] == "1.1.0"


def test_beyond_the_first_devices_nothing_is_traced(
    fleet: Fleet, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "MAX_DEVICES", 1)
    first, second = rolled_out(fleet, traceparent=str(CI)), fleet.device("cam-2", site="here")
    assert HEADER in offered(first).headers
    assert HEADER not in offered(second).headers
    assert report_beside(second, f"detector={CI}").status_code == 200
    assert sent(fleet, collector, "report") == []


def test_what_changes_nothing_says_nothing_of_traces(fleet: Fleet) -> None:
    cam = rolled_out(fleet, traceparent=str(CI))
    cam.etag = offered(cam).headers["etag"]
    answer = cam.poll()
    assert answer.status_code == 304
    assert HEADER not in answer.headers


def test_a_wrong_endpoint_is_refused_by_name(settings: Settings) -> None:
    from pilotwave_server.app import create_app

    wrong = settings.model_copy(update={"otlp_endpoint": "collector:4318"})
    with pytest.raises(BadSetting, match="PILOTWAVE_OTLP_ENDPOINT: expected a collector's URL"):
        create_app(wrong)
