"""What a look of the engine costs does not grow with the fleet: no statement reads a whole table of
devices, and how many statements there are is fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from pilotwave_server.rollouts.engine.observe import look
from pilotwave_server.rollouts.engine.picture import Moment
from pilotwave_server.rollouts.operate import steer
from pilotwave_server.rollouts.policies.policy import InstallGate, MetricGate, Pace, Wave
from tests.server.rollouts.worlds_db import World, policy

MOST_STATEMENTS = 20
TABLES = {"devices", "device_models", "device_metrics", "rollout_devices", "rollout_samples"}
GATES = (InstallGate(slice_by=("hw",)), MetricGate("speed", "latency_ms", slice_by=("hw",)))


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
        words = [row[3].split() for row in plan]
        return [" ".join(w) for w in words if w[0] == "SCAN" and TABLES.intersection(w)]
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    lines = [row[0] for row in plan]
    return [ln for ln in lines if "Seq Scan on" in ln and TABLES.intersection(ln.split())]


def test_a_look_reads_no_table_of_devices_and_takes_few_statements(world: World) -> None:
    waves = Wave("half", percent=50, gates=GATES), Wave("all", percent=100)
    for pace in (Pace(), Pace(max_in_flight=3)):
        name = world.create(policy(*waves, pace=pace))
        world.do(steer.next_wave, name)
        look_at(world, name)
        world.do(steer.abort, name)


def look_at(world: World, name: str) -> None:
    with world.db.read() as session:
        snapshot = world.snapshot(session)
    moment = Moment(world.now(), world.now() - timedelta(days=1))
    with world.db.read() as session:
        with heard(session) as said:
            assert look(session, snapshot, int(name[1:]), moment) is not None
        assert len(said) <= MOST_STATEMENTS, [s for s, _ in said]
        for statement, parameters in said:
            assert reads_everything(session, statement, parameters) == [], statement
