"""Rounds of before there were experiments: each becomes one, with all that was kept of it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import text

from pilotwave_server import migrate
from pilotwave_server.db import Database
from tests.migrations.test_facts_apart import insert

BEFORE = "drift"
AT = datetime(2026, 11, 29, 9, 30, tzinfo=timezone.utc)
ROUNDS = [
    ("open", None, "running", None),
    ("closing", None, "running", None),
    ("done", AT, "completed", "server"),
    ("failed", AT, "failed", "server"),
]


@pytest.fixture
def before(empty_database_url: str) -> Any:
    migrate.upgrade(empty_database_url, BEFORE)
    db = Database(empty_database_url)
    with db.write() as session:
        insert(session, "devices", id=1, name="cam-1", state="enrolled")
        insert(session, "groups", id=7, name="cams", kind="static")
        insert(session, "models", name="m")
        plan = {"model": "m", "sha256": "a" * 64, "content": b"plan", "published_by": "x"}
        insert(session, "plans", id=3, name="autumn", published_at=AT, **plan)
        for number, (state, ended, *_) in enumerate(ROUNDS, 1):
            insert(
                session, "learning_rounds", id=number, plan_id=3, model="m", plan="autumn",
                plan_sha256="a" * 64, group_id=7, group="cams", state=state, opened_at=AT,
                opened_by="ada", ends_at=AT, ended_at=ended, detail="why", head=b"head",
            )  # fmt: skip
        insert(
            session, "learning_updates", id=1, round_id=1, device_id=1, device="cam-1",
            examples=40, sha256="b" * 64, size=196, received_at=AT, content=b"numbers",
        )  # fmt: skip
    yield db
    db.close()


def rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as session:
        return [tuple(row) for row in session.execute(text(query))]


def test_each_round_becomes_an_experiment_and_back(before: Database) -> None:
    url = before.url.render_as_string(hide_password=False)
    migrate.upgrade(url, "learning_experiments")
    query = 'SELECT state, ended_by, opened_by, "group", group_id, detail FROM learning_experiments'
    wanted = [(state, by, "ada", "cams", 7, "why") for *_, state, by in ROUNDS]
    assert rows(before, f"{query} ORDER BY id") == wanted
    query = (
        "SELECT experiment_id, number, state, devices, examples, size, head FROM learning_rounds"
    )
    found = [
        (n, e, s, d, x, b, bytes(h)) for n, e, s, d, x, b, h in rows(before, f"{query} ORDER BY id")
    ]
    counted = [(1, 40, 196), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
    assert found == [
        (n, 1, state, *counts, b"head")
        for n, ((state, *_), counts) in enumerate(zip(ROUNDS, counted, strict=True), 1)
    ]
    assert rows(before, "SELECT round_id, device, examples FROM learning_updates") == [
        (1, "cam-1", 40)
    ]
    with before.write() as session:  # the numbers go on behind those that there are
        session.execute(
            text(
                'INSERT INTO learning_experiments (plan_id, model, plan, plan_sha256, "group",'
                ' policy, multiplier, "offset", wave, threshold, wave_opened_at, state, opened_at,'
                ' opened_by) SELECT plan_id, model, plan, plan_sha256, "group", policy, 1, 0, 0,'
                " 1, opened_at, state, opened_at, opened_by FROM learning_experiments WHERE id = 1"
            )
        )
    assert rows(before, "SELECT max(id) FROM learning_experiments") == [(5,)]
    migrate.downgrade(url, BEFORE)
    query = 'SELECT id, state, opened_by, "group", detail, plan_id FROM learning_rounds ORDER BY id'
    assert rows(before, query) == [
        (n, state, "ada", "cams", "why", 3) for n, (state, *_) in enumerate(ROUNDS, 1)
    ]
