"""The audit log: who did what, kept for good."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pilotwave_server.audit.service import record
from pilotwave_server.db import Database

API = "/api/v1"


def test_a_change_over_the_api_leaves_a_line_with_before_and_after(
    admin: httpx.Client, clock: Any
) -> None:
    made = admin.post(f"{API}/tokens", json={"name": "ci", "role": "publisher"}).json()
    admin.delete(f"{API}/tokens/{made['id']}")
    lines = admin.get(f"{API}/events", params={"object": "token/ci"}).json()["items"]
    assert [line["verb"] for line in lines] == ["token.revoke", "token.create"]
    assert {line["actor"] for line in lines} == {"token/test-admin"}
    assert lines[0]["before"] == {"role": "publisher"}
    assert lines[1]["after"] == {"role": "publisher", "expires_at": None}
    assert made["token"] not in str(lines)


def test_a_change_that_failed_leaves_no_line(admin: httpx.Client) -> None:
    admin.post(f"{API}/tokens", json={"name": "ci", "role": "viewer"})
    admin.post(f"{API}/tokens", json={"name": "ci", "role": "viewer"})
    lines = admin.get(f"{API}/events", params={"object": "token/ci"}).json()["items"]
    assert len(lines) == 1


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_events SET actor='x'", "DELETE FROM audit_events"]
)
def test_the_database_itself_refuses_to_change_or_drop_a_line(
    db: Database, clock: Any, statement: str
) -> None:
    with db.write() as session:
        record(session, actor="server", verb="test", object="test", now=clock())
    with pytest.raises(DBAPIError, match="only ever added"), db.write() as session:
        session.execute(text(statement))


def test_filters_are_exact_and_since_is_an_earliest_time(
    viewer: httpx.Client, db: Database, clock: Any
) -> None:
    with db.write() as session:
        for actor, verb in (("token/a", "pin"), ("token/ab", "pin"), ("token/a", "unpin")):
            record(session, actor=actor, verb=verb, object="device/cam", now=clock())
            clock.advance(minutes=1)

    def count(**params: Any) -> int:
        return len(viewer.get(f"{API}/events", params=params).json()["items"])

    assert count(object="device/cam") == 3
    assert count(actor="token/a") == 2
    assert count(actor="token/a", verb="pin") == 1
    assert count(object="device/cam", since=(clock() - timedelta(minutes=2)).isoformat()) == 2
    assert count(object="device/c%") == 0


def test_the_log_needs_a_token_and_takes_nothing(client: httpx.Client, admin: httpx.Client) -> None:
    assert client.get(f"{API}/events").status_code == 401
    assert admin.post(f"{API}/events", json={}).status_code == 405
