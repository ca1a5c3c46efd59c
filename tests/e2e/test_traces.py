"""One trace from `pilotwave publish` to the report of the switch: real programs, a collector that
is simulated."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until
from tests.peers.collector import Collector, Span, collecting

pytestmark = [pytest.mark.timeout(400), pytest.mark.needs("onnxruntime"), pytest.mark.long]

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
TRACING = '[tracing]\nendpoint = "{url}"\n'
POLICY = "name: quick\nwaves:\n  - name: all\n    percent: 100\n"
QUICK = {"PILOTWAVE_POLL_INTERVAL_S": "1", "OTEL_BSP_SCHEDULE_DELAY": "200"}
WAY = [
    ("pilotwave", "publish"),
    ("pilotwave-server", "record version"),
    ("pilotwave-server", "create rollout"),
    ("pilotwave-server", "open wave"),
    ("pilotwave-server", "serve directive"),
    ("pilotwave-agent", "download"),
    ("pilotwave-agent", "verify"),
    ("pilotwave-agent", "self-test"),
    ("pilotwave-agent", "switch"),
    ("pilotwave-server", "report"),
]
PARENT = {
    "record version": "publish",
    "create rollout": "record version",
    "open wave": "create rollout",
    "serve directive": "open wave",
    "download": "serve directive",
    "verify": "serve directive",
    "self-test": "serve directive",
    "switch": "serve directive",
    "probation": "serve directive",
}


def roll_out(fleet: FleetOfOne, version: str) -> None:
    fleet.publish("net", version, DIGITS / version)
    (fleet.stage.root / "quick.yaml").write_text(POLICY)
    words = ("net", version, "--group", "boards", "--policy-file", "quick.yaml", "--start", "--yes")
    fleet.stage.pilotwave("rollouts", "create", *words)


def in_trace(collector: Collector, trace: str) -> list[tuple[str, str]]:
    return [(s.service, s.name) for s in collector.spans if s.trace == trace]


def test_one_trace_shows_the_way_from_publish_to_the_report_of_the_switch(tmp_path: Path) -> None:
    with collecting() as collector:
        server = {**QUICK, "PILOTWAVE_OTLP_ENDPOINT": collector.url}
        settings = TRACING.format(url=collector.url)
        with fleet_of_one(tmp_path, server=server, settings=settings) as fleet:
            fleet.stage.pilotwave("models", "create", "net", "--publisher", "keys/publisher.pem")
            roll_out(fleet, "1.0.0")
            fleet.until("net", "1.0.0", "healthy")
            (publish,) = collector.named("publish")
            wait_until(
                lambda: {*WAY} <= {*in_trace(collector, publish.trace)},
                lambda: f"{[*WAY]} in {in_trace(collector, publish.trace)}",
            )
    by_id = {span.id: span for span in collector.spans}

    def parent(span: Span) -> str:
        return by_id[span.parent].name if span.parent in by_id else ""

    for span in collector.spans:
        if span.trace == publish.trace and span.name in PARENT:
            assert parent(span) == PARENT[span.name], span
            assert span.error == "", span
            assert span.start <= span.end
    reports = [span for span in collector.named("report") if span.trace == publish.trace]
    assert {parent(span) for span in reports} & {"switch", "probation"}
    (switch,) = collector.named("switch")
    assert switch.attributes["pilotwave.device"] == "board"
    assert switch.attributes["pilotwave.version"] == "1.0.0"


@pytest.mark.parametrize("how", ["gone", "silent"])
def test_a_collector_that_does_not_answer_holds_nothing_up(tmp_path: Path, how: str) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if how == "silent":
            deaf.listen(64)  # it takes connections, and never says a word
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        server = {**QUICK, "PILOTWAVE_OTLP_ENDPOINT": url}
        with fleet_of_one(tmp_path, server=server, settings=TRACING.format(url=url)) as fleet:
            fleet.stage.pilotwave("models", "create", "net", "--publisher", "keys/publisher.pem")
            began = time.monotonic()
            roll_out(fleet, "1.0.0")
            fleet.until("net", "1.0.0", "healthy")
            assert time.monotonic() - began < 60


@pytest.mark.parametrize("traced", ["server", "agent"])
def test_only_one_side_traces_and_the_other_does_not_mind(tmp_path: Path, traced: str) -> None:
    with collecting() as collector:
        server = dict(QUICK)
        if traced == "server":
            server["PILOTWAVE_OTLP_ENDPOINT"] = collector.url
        settings = TRACING.format(url=collector.url) if traced == "agent" else ""
        with fleet_of_one(tmp_path, server=server, settings=settings) as fleet:
            fleet.stage.pilotwave("models", "create", "net", "--publisher", "keys/publisher.pem")
            roll_out(fleet, "1.0.0")
            fleet.until("net", "1.0.0", "healthy")
            if traced == "server":
                wait_until(lambda: bool(collector.named("serve directive")), lambda: "no directive")
    assert not [span for span in collector.spans if span.service == "pilotwave-agent"]
    assert traced == "server" or not collector.spans
