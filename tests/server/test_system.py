"""The server about itself: health and metrics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from pilotwave_server import migrate
from pilotwave_server.app import create_app
from pilotwave_server.db import Database
from pilotwave_server.metrics import gauge
from pilotwave_server.settings import Settings
from tests.conftest import FakeClock
from tests.servers import RunningServer, run_in_thread

API = "/api/v1"


def test_healthz_needs_no_token_and_says_where_the_database_is(client: httpx.Client) -> None:
    answer = client.get("/healthz").json()
    assert answer["status"] == "ok"
    assert answer["migration"] == migrate.head()
    assert answer["revision"] == 0


def test_status_tells_how_a_new_fleet_stands(viewer: httpx.Client, clock: FakeClock) -> None:
    answer = viewer.get(f"{API}/status").json()
    assert answer["fleet"] == "test-fleet"
    assert answer["now"] == clock().isoformat().replace("+00:00", "Z")
    assert (answer["bootstrapped"], answer["models"], answer["roles"]) == (False, 0, [])
    assert answer["devices"] == {}


def test_metrics_need_a_token_unless_they_are_open(
    client: httpx.Client, viewer: httpx.Client, settings: Settings
) -> None:
    assert client.get("/metrics").status_code == 401
    assert viewer.get("/metrics").status_code == 200
    with run_in_thread(create_app(settings.model_copy(update={"metrics_open": True}))) as opened:
        assert httpx.get(f"{opened.url}/metrics", timeout=30).status_code == 200


def test_requests_are_counted_by_route_not_by_path(
    viewer: httpx.Client, admin: httpx.Client
) -> None:
    for n in range(3):
        admin.delete(f"{API}/tokens/nothing-{n}")
    admin.get("/no/such/path")
    shown = viewer.get("/metrics").text
    counted = 'pilotwave_http_requests_total{method="DELETE",route="/api/v1/tokens/{token_id}"'
    assert f'{counted},status="404"}} 3.0' in shown
    assert 'route="none",status="404"} 1.0' in shown
    assert "nothing-0" not in shown


def test_a_reading_is_taken_each_time_the_metrics_are_asked(
    viewer: httpx.Client, server: RunningServer
) -> None:
    readings = iter([3.0, 4.0])
    server.context.metrics.add_reading(
        lambda: [gauge("pilotwave_test", "A test.", "kind", [("a", next(readings))])]
    )
    assert 'pilotwave_test{kind="a"} 3.0' in viewer.get("/metrics").text
    assert 'pilotwave_test{kind="a"} 4.0' in viewer.get("/metrics").text


def test_a_database_that_is_gone_is_503_with_retry_after(
    admin: httpx.Client, server: RunningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    admin.get(f"{API}/whoami")
    gone = Database("postgresql://nobody:hunter2@127.0.0.1:9/nothing")
    server.context.db.close()
    server.context.db.reader, server.context.db.writer = gone.reader, gone.writer
    with caplog.at_level(logging.ERROR):
        for answer in (admin.get(f"{API}/events"), admin.get("/healthz")):
            assert answer.status_code == 503
            assert answer.json()["code"] == "database_unavailable"
            assert answer.headers["retry-after"] == "5"
    assert "hunter2" not in caplog.text
    gone.close()


def test_an_unforeseen_error_is_a_500_that_tells_nothing_but_a_number_for_the_log(
    admin: httpx.Client, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with db.write() as session:
        session.execute(text("DROP TABLE operator_tokens"))
    with caplog.at_level(logging.ERROR):
        answer = admin.get(f"{API}/tokens")
    document: dict[str, Any] = answer.json()
    assert document["status"] == answer.status_code >= 500
    assert "operator_tokens" not in answer.text
