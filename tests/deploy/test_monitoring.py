"""Alerts and dashboard: in order by Prometheus' own tool, of metrics that a server really has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from pilotwave_server.workers import Periodic
from tests.conftest import ServerFactory
from tests.server.device_api.peer import report
from tests.server.fleet_fixtures import Fleet, fleet, only_sqlite, published

__all__ = ["fleet", "published"]
REPO = Path(__file__).parents[2]
PROMETHEUS = REPO / "deploy" / "prometheus"
DASHBOARD = REPO / "deploy" / "grafana" / "pilotwave.json"
PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool is not installed (Debian's prometheus)"
)
# `up` is Prometheus' own; on SQLite nothing listens, and a new server has no backup
ELSEWHERE = {
    "up",
    "pilotwave_listening",
    "pilotwave_clock_ahead_seconds",
    "pilotwave_backup_timestamp_seconds",
}


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> list[str]:
    """Of alerts and dashboard."""
    drawn = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    return [rule["expr"] for rule in alerts().values()] + drawn


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:pilotwave_\w+|up)\b", expression))


def promtool(*words: object, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [PROMTOOL, *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


@needs_promtool
def test_each_alert_stays_still_and_comes() -> None:
    done = promtool("test", "rules", PROMETHEUS / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    told = [t for test in tests for t in test["alert_rule_test"]]
    for name in alerts():
        of_it = [bool(t.get("exp_alerts")) for t in told if t["alertname"] == name]
        assert set(of_it) == {True, False}, name


@needs_promtool
def test_promtool_reads_each_expression(tmp_path: Path) -> None:
    rules = [{"record": f"x:{n}", "expr": e} for n, e in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@only_sqlite
def test_each_metric_that_is_asked_for_is_there(fleet: Fleet, viewer: httpx.Client) -> None:
    fleet.group("all", "*")
    device = fleet.device("cam-1")
    device.check_in(report("1.0.0"))
    device.poll()
    failing = Periodic("of-the-test", lambda: 1 / 0, interval_s=9, at_stop=True)
    failing.start()
    failing.stop()
    text = viewer.get("/metrics").text
    there = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    # a counter without a label's value yet has no line but this
    there |= set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for name, inner in re.findall(r"^(\w+)\{([^}]*)\}", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=", inner))
    for expression in expressions():
        assert names_in(expression) <= there | ELSEWHERE, expression
        for name, inner in re.findall(r"(pilotwave_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)[=!]", inner)) <= labels[name], expression
    assert 'pilotwave_worker_failures_total{worker="of-the-test"}' in text


def test_a_backup_is_told_of(server_factory: ServerFactory, tmp_path: Path) -> None:
    server = server_factory(metrics_open=True)
    assert "backup_timestamp" not in httpx.get(f"{server.url}/metrics").text
    server.command("backup", "--to", tmp_path / "backup", "--without-keys", "--data", server.data)
    told = re.search(
        r"^pilotwave_backup_timestamp_seconds (\S+)$",
        httpx.get(f"{server.url}/metrics").text,
        re.MULTILINE,
    )
    assert told
    assert float(told[1]) > 1.7e9


def test_the_runbook_has_a_section_for_each_alert() -> None:
    page = (REPO / "docs" / "operations.md").read_text()
    sections = re.findall(r"^### (Pilotwave\w+)$", page, re.MULTILINE)
    assert sorted(sections) == sorted(alerts())
    for part in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        assert "**What to do.**" in part, part.partition("\n")[0]
    for rule in alerts().values():
        assert rule["labels"]["severity"] in ("page", "warning", "info")
        assert rule["annotations"]["summary"].endswith((".", "?"))


def test_the_dashboard_s_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    for panel in panels():
        at = panel["gridPos"]
        area = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not area & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= area
        assert panel["type"] == "row" or panel["targets"]
