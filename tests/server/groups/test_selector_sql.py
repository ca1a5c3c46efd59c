"""The two compilers of a selector agree, on both databases, whatever labels and facts hold."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, insert, select

from pilotwave_protocol.fields import Scalar
from pilotwave_server.db import Database, JsonB
from pilotwave_server.selector import compile_predicate, compile_sql, parse
from tests.server.groups.strategies import facts, labels, selectors
from tests.server.groups.test_selector import FACTS, FAILS, HOLDS, LABELS

MACHINES = Table(
    "machines",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("labels", JsonB),
    Column("facts", JsonB),
    prefixes=["TEMPORARY"],
)
Machine = tuple[dict[str, str], dict[str, Scalar]]


def selected_by_sql(db: Database, text: str, machines: list[Machine]) -> list[int]:
    rows = [{"id": n, "labels": x, "facts": y} for n, (x, y) in enumerate(machines)]
    where = compile_sql(
        parse(text), MACHINES.c.labels, MACHINES.c.facts, dialect=db.writer.dialect.name
    )
    with db.writer.connect() as connection:
        MACHINES.create(connection)
        connection.execute(insert(MACHINES), rows)
        found = connection.execute(select(MACHINES.c.id).where(where).order_by(MACHINES.c.id))
        selected = list(found.scalars())
        connection.rollback()
    return selected


def selected_by_predicate(text: str, machines: list[Machine]) -> list[int]:
    selects = compile_predicate(parse(text))
    return [n for n, (x, y) in enumerate(machines) if selects(x, y)]


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=selectors(), machines=st.lists(st.tuples(labels, facts), min_size=1, max_size=12))
def test_sql_selects_what_the_predicate_selects(
    db: Database, text: str, machines: list[Machine]
) -> None:
    assert selected_by_sql(db, text, machines) == selected_by_predicate(text, machines)


@pytest.mark.parametrize(("texts", "expected"), [(HOLDS, [0]), (FAILS, [])])
def test_sql_gives_each_example_its_meaning(
    db: Database, texts: list[str], expected: list[int]
) -> None:
    machines: list[Machine] = [(LABELS, FACTS)]
    assert {t: selected_by_sql(db, t, machines) for t in texts} == dict.fromkeys(texts, expected)


def test_value_cannot_break_out_of_the_sql(db: Database) -> None:
    hostile = ["x' OR '1'='1", 'x" OR 1=1 --', "$.b", "'; DROP TABLE machines; --"]
    machines: list[Machine] = [({"a": value}, {}) for value in [*hostile, "x"]]
    for number, value in enumerate(hostile):
        quoted = value.replace("'", "\\'")
        assert selected_by_sql(db, f"a='{quoted}'", machines) == [number]
