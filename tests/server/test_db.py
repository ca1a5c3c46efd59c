"""What a session promises, on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, StatementError

from pilotwave_server.audit.service import record
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.db import (
    Database,
    after_commit,
    fleet_row,
    insert_missing,
    lock_fleet,
    next_revision,
    touch_fleet,
    upsert,
)
from pilotwave_server.downloads.tables import SentRow
from pilotwave_server.engines import parse_url
from pilotwave_server.errors import BadSetting

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def advance_and_fail(db: Database) -> None:
    with db.write() as session:
        next_revision(session)
        raise ZeroDivisionError


def test_write_session_commits_at_the_end_of_its_block(db: Database) -> None:
    with db.write() as session:
        assert next_revision(session) == 1
    with db.read() as session:
        assert fleet_row(session).revision == 1


def test_write_session_rolls_back_when_its_block_fails(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        advance_and_fail(db)
    with db.read() as session:
        assert fleet_row(session).revision == 0


def test_upsert_sets_adds_or_leaves_what_is_there(db: Database) -> None:
    key = {"device_id": 1, "model": "m", "version": "1", "variant": "v", "rollout": "", "site": ""}

    def row(full: int, delta: int) -> dict[str, Any]:
        return {**key, "sent_full": full, "sent_delta": delta, "delta_for": 0}

    def found() -> tuple[int, int]:
        with db.read() as session:
            there = session.scalars(select(SentRow)).one()
            return there.sent_full, there.sent_delta

    steps: list[tuple[dict[str, Any], tuple[int, int]]] = [
        ({}, (5, 7)),  # there is none
        ({}, (5, 7)),
        ({"adding": ["sent_full"]}, (10, 7)),
        ({"changing": ["sent_delta"]}, (10, 7)),
        ({"where": SentRow.sent_full < 10}, (10, 7)),
    ]
    for given, expected in steps:
        with db.write() as session:
            upsert(session, SentRow, [row(5, 7)], **given)
        assert found() == expected
    with db.write() as session:
        insert_missing(session, SentRow, [row(1, 1)])
        upsert(session, SentRow, [])
    assert found() == (10, 7)


def test_read_session_refuses_to_write(db: Database) -> None:
    with db.read() as session, pytest.raises(DBAPIError):
        session.execute(text("UPDATE fleet_state SET revision = 7"))
    with db.read() as session:
        assert fleet_row(session).revision == 0


def test_read_session_sees_one_moment_while_others_write(db: Database) -> None:
    with db.read() as session:
        before = session.scalar(text("SELECT revision FROM fleet_state"))
        with db.write() as other:
            next_revision(other)
        assert session.scalar(text("SELECT revision FROM fleet_state")) == before


def test_fleet_wide_change_moves_both_numbers_and_a_single_one_only_the_first(db: Database) -> None:
    with db.write() as session:
        assert [next_revision(session), touch_fleet(session), next_revision(session)] == [1, 2, 3]
        assert fleet_row(session).fleet_revision == 2
    with db.write() as session:
        assert lock_fleet(session).revision == 3


def test_callbacks_run_after_the_commit_and_only_then(db: Database) -> None:
    seen: list[object] = []

    def look() -> None:
        with db.read() as session:
            seen.append(fleet_row(session).revision)

    db.on_revision.append(look)
    with db.write() as session:
        next_revision(session)
        after_commit(session, lambda: seen.append("own"))
        assert seen == []
    assert seen == [1, "own"]
    with pytest.raises(ZeroDivisionError):
        advance_and_fail(db)
    with db.write() as session:
        fleet_row(session)
    assert seen == [1, "own"]


def test_a_failing_callback_does_not_undo_or_fail_the_write(db: Database) -> None:
    db.on_revision.append(lambda: 1 // 0)
    with db.write() as session:
        next_revision(session)
    with db.read() as session:
        assert fleet_row(session).revision == 1


def test_times_come_back_aware_and_equal_whatever_zone_they_had(db: Database) -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    with db.write() as session:
        record(session, actor="server", verb="test", object="test", now=there)
    with db.read() as session:
        row = session.query(AuditEventRow).one()
        assert row.at == NOON
        assert row.at.utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_refused(db: Database) -> None:
    with pytest.raises(StatementError, match="without a zone"), db.write() as session:
        record(session, actor="server", verb="t", object="t", now=NOON.replace(tzinfo=None))


@pytest.mark.parametrize(
    "url",
    [
        *("", "nonsense", "mysql://root:hunter2@host/db", "sqlite://"),
        *("postgresql://root:hunter2@[::1/db", "postgresql://root:hunter2@h/db?no=such"),
    ],
)
def test_an_unusable_database_url_is_named_without_being_repeated(url: str) -> None:
    with pytest.raises(BadSetting) as caught:
        parse_url(url)
    assert "expected sqlite:///" in str(caught.value)
    assert "hunter2" not in str(caught.value)
