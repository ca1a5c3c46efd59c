"""What an act on many devices costs the database: as much for each hundred as for one device."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import func, select

from pilotwave_protocol.auditchain import START, chained
from pilotwave_server.audit.service import all_events, head
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceHistoryRow, DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.rollouts.bulk import acts
from pilotwave_server.rollouts.bulk.steps import DeviceAction
from tests.server.devices.test_silence import device, statements

NOW = datetime(2026, 11, 29, 3, 0, tzinfo=timezone.utc)
SOMEBODY = Actor("token", "night", Role.OPERATOR)
MANY = 500
MOST_OF_A_CHUNK = 40
LABEL, DETECTOR = {"labels": {"shift": "night"}}, {"model": "detector"}
BACK = {**DETECTOR, "reason": "bad"}


def add(db: Database, state: str) -> list[str]:
    """Devices that went from 1.0.0 to 1.1.0; their names."""
    with db.write() as session:
        rows = [device(n, state=state, created_at=NOW) for n in range(MANY)]
        session.add_all(rows)
        session.flush()
        for row in rows:
            told = {"device_id": row.id, "model": "detector"}
            runs = {"current_version": "1.1.0", "state": "healthy", "since": NOW}
            session.add(DeviceModelRow(**told, **runs))
            for version in ("1.0.0", "1.1.0"):
                was = {"version": version, "became": "healthy", "at": NOW}
                session.add(DeviceHistoryRow(**told, **was))
        return [row.name for row in rows]


@pytest.mark.parametrize(
    ("action", "more", "state", "verb"),
    [
        ("label", LABEL, "enrolled", "label"),
        ("accept", {}, "pending", "accept"),
        ("decommission", {}, "enrolled", "decommission"),
        ("retry", DETECTOR, "enrolled", "retry"),
        ("rollback", BACK, "enrolled", "rollback"),
        ("rollback", {**BACK, "to": "1.0.0"}, "enrolled", "rollback"),
    ],
)
def test_many_devices_cost_a_fixed_number_of_statements_for_each_hundred(
    published: Any,
    db: Database,
    context: Context,
    action: Any,
    more: dict[str, Any],
    state: str,
    verb: str,
) -> None:
    names = add(db, state)
    with statements(context.db, mine=True) as sent:
        found = acts.act(context, SOMEBODY, names, DeviceAction(action, **more))
    assert all(one.done for one in found), found[0]
    assert len(found) == MANY
    assert len(sent) <= MANY // acts.AT_ONCE * MOST_OF_A_CHUNK, len(sent)
    with db.read() as session:
        told = select(AuditEventRow.object).where(AuditEventRow.verb == f"device.{verb}")
        assert sorted(session.scalars(told)) == sorted(f"device/{name}" for name in names)
        assert set(session.scalars(select(DeviceRow.revision))).isdisjoint({1})
        if action == "rollback":
            assert set(session.scalars(select(PinRow.version))) == {"1.0.0"}
            assert session.scalar(select(func.count()).select_from(PinRow)) == MANY
        last = START
        for event in all_events(session):
            last = chained(last, event)
            assert event["sha256"] == last
        assert head(session) == (last, session.scalar(select(func.count(AuditEventRow.id))))


def test_what_one_device_is_refused_changes_nothing_of_it_and_stops_no_other(
    published: Any, db: Database, context: Context
) -> None:
    names = add(db, "enrolled")[:4]
    with db.write() as session:
        for name, state in zip(names, ("pending", "enrolled", "revoked"), strict=False):
            row = session.scalars(select(DeviceRow).where(DeviceRow.name == name)).one()
            row.state = state
    found = acts.act(context, SOMEBODY, [*names, "nobody"], DeviceAction("decommission"))
    codes = [one.code for one in found]
    assert codes == ["wrong_state", None, "wrong_state", None, "device_unknown"]
    found = acts.act(context, SOMEBODY, names, DeviceAction("rollback", **BACK, to="9.9.9"))
    assert [one.code for one in found] == ["version_unknown"] * 4
    found = acts.act(context, SOMEBODY, names, DeviceAction("retry", model="other"))
    assert [one.code for one in found] == ["model_unknown"] * 4
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(PinRow)) == 0
        verbs = set(session.scalars(select(AuditEventRow.verb)))
        assert verbs.isdisjoint({"device.rollback", "device.retry"})
