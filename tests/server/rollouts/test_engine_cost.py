"""What a look of the engine costs does not grow with the fleet: no statement reads a whole table of
devices, and how many statements there are is fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from pilotwave_server.rollouts import operating
from pilotwave_server.rollouts.engine.look import look
from pilotwave_server.rollouts.engine.picture import Moment
from pilotwave_server.rollouts.policies.document import Pace, Wave
from tests.server.rollouts.worlds_db import World, policy

MOST_STATEMENTS = 12


@contextmanager
def heard(session: Session) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are asked of the database inside, with their parameters."""
    said: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        said.append((statement, parameters))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", note)


def reads_everything(session: Session, statement: str, parameters: Any) -> list[str]:
    """Say which tables of devices a statement reads from end to end, by the database's plan."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        lines = [row[3] for row in plan]
        return [line for line in lines if line.startswith("SCAN") and "evices" in line]
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    return [row[0] for row in plan if "Seq Scan on" in row[0] and "devices" in row[0]]


def test_a_look_reads_no_table_of_devices_and_takes_few_statements(world: World) -> None:
    waves = Wave("half", percent=50), Wave("all", percent=100)
    name = world.create(policy(*waves, pace=Pace(max_in_flight=3)))
    world.do(operating.next_wave, name)
    with world.db.read() as session:
        snapshot = world.snapshot(session)
    moment = Moment(world.now(), world.now() - timedelta(days=1))
    with world.db.read() as session:
        with heard(session) as said:
            assert look(session, snapshot, int(name[1:]), moment) is not None
        assert len(said) <= MOST_STATEMENTS, [s for s, _ in said]
        for statement, parameters in said:
            assert reads_everything(session, statement, parameters) == [], statement
