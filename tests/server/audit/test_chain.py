"""The audit log's chain: what was changed, taken out or put in is found."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from pilotwave_protocol.auditchain import START, chained, check
from pilotwave_server.db import Database

API = "/api/v1"


def events(admin: httpx.Client) -> list[dict[str, Any]]:
    answer = admin.get(f"{API}/events/export")
    assert answer.headers["content-type"].startswith("application/jsonl")
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def log(admin: httpx.Client) -> list[dict[str, Any]]:
    for name in ("a", "b", "c"):
        body = {"name": name, "role": "viewer"}
        assert admin.post(f"{API}/tokens", json=body).status_code == 201
    return events(admin)


def test_the_export_is_one_whole_chain_and_its_head_is_told(
    admin: httpx.Client, log: list[dict[str, Any]]
) -> None:
    found = check(log)
    assert (found.broken_at, found.events) == (None, len(log))
    head = admin.get(f"{API}/events/head").json()
    assert head == {"sha256": found.head, "events": len(log)}
    assert check(log, expected=log[1]["sha256"]).seen
    assert not check(log, expected="f" * 64).seen


@pytest.mark.parametrize("field", ["actor", "verb", "object", "at", "after"])
def test_a_changed_event_is_found(log: list[dict[str, Any]], field: str) -> None:
    log[1][field] = {"role": "admin"} if field == "after" else "x"
    assert check(log).broken_at == log[1]["id"]


def test_an_event_taken_out_put_in_or_moved_is_found(log: list[dict[str, Any]]) -> None:
    assert check([log[0], *log[2:]]).broken_at == log[2]["id"]
    assert check([log[1], log[0]]).broken_at is not None
    forged = {**log[2], "sha256": chained(log[1]["sha256"], {**log[2], "actor": "x"})}
    assert check([*log[:2], forged, *log[2:]]).broken_at == forged["id"]


def test_a_log_rewritten_whole_does_not_meet_the_digest_noted_before(
    log: list[dict[str, Any]],
) -> None:
    noted, head = log[-1]["sha256"], START
    log[0]["actor"] = "somebody/else"
    for event in log:
        event["sha256"] = head = chained(head, event)
    rewritten = check(log, expected=noted)
    assert rewritten.broken_at is None
    assert not rewritten.seen


def test_nothing_is_chained_by_a_change_that_did_not_happen(
    admin: httpx.Client, log: list[dict[str, Any]]
) -> None:
    taken = admin.post(f"{API}/tokens", json={"name": "a", "role": "viewer"})
    assert taken.status_code == 409
    assert events(admin) == log


def test_the_database_itself_refuses_to_change_an_event(
    log: list[dict[str, Any]], db: Database
) -> None:
    for statement in ("UPDATE audit_events SET actor = 'x'", "DELETE FROM audit_events"):
        with pytest.raises(Exception, match="only ever added"), db.write() as session:
            session.execute(text(statement))
