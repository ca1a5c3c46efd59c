"""A write is acknowledged after its commit, never before, and writers do not starve each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from fastapi import APIRouter
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from pilotwave_server.app import PilotwaveApp
from pilotwave_server.context import Context
from pilotwave_server.deps import WriteSession
from tests.servers import RunningServer, run_in_thread

API = "/api/v1"


def test_a_commit_that_fails_is_an_error_to_the_caller_and_changes_nothing(
    admin: httpx.Client, context: Context
) -> None:
    def fail(connection: Any) -> None:
        raise OperationalError("COMMIT", {}, Exception("the disk is full"))

    event.listen(context.db.writer, "commit", fail)
    answer = admin.post(f"{API}/tokens", json={"name": "ci", "role": "viewer"})
    event.remove(context.db.writer, "commit", fail)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "pw_" not in answer.text
    names = [row["name"] for row in admin.get(f"{API}/tokens").json()["items"]]
    assert names == ["test-admin"]


def test_more_writers_than_threads_all_get_through(server: RunningServer, admin_token: str) -> None:
    headers = {"Authorization": f"Bearer {admin_token}"}
    with (
        httpx.Client(
            base_url=server.url,
            headers=headers,
            timeout=60,
            limits=httpx.Limits(max_connections=80),
        ) as client,
        ThreadPoolExecutor(80) as pool,
    ):

        def make(n: int) -> int:
            body = {"name": f"t{n}", "role": "viewer"}
            return client.post(f"{API}/tokens", json=body).status_code

        assert list(pool.map(make, range(160))) == [201] * 160


def test_of_two_that_want_one_name_one_wins_and_the_other_is_told(
    server: RunningServer, admin_token: str
) -> None:
    headers = {"Authorization": f"Bearer {admin_token}"}
    with (
        httpx.Client(base_url=server.url, headers=headers, timeout=30) as client,
        ThreadPoolExecutor(8) as pool,
    ):

        def make(_: int) -> tuple[int, str]:
            answer = client.post(f"{API}/tokens", json={"name": "one", "role": "viewer"})
            return answer.status_code, answer.json().get("code", "")

        answers = list(pool.map(make, range(8)))
    assert sorted(status for status, _ in answers) == [201] + [409] * 7
    assert {code for status, code in answers if status == 409} <= {"token_name_taken", "clash"}


def test_a_session_on_a_router_that_would_not_commit_it_fails_loudly(
    app: PilotwaveApp, admin_token: str
) -> None:
    plain = APIRouter()

    @plain.get("/plain")
    def route(session: WriteSession) -> None:
        raise AssertionError("never called")

    app.fastapi.include_router(plain)
    with run_in_thread(app) as running:
        assert httpx.get(f"{running.url}/plain", timeout=30).status_code == 500
