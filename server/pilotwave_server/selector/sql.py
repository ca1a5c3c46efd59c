"""Compile a selector to SQL over two JSON columns, for SQLite and PostgreSQL.

Keys and values travel as bound parameters. Each leaf is coalesced, so that no NULL leaks into the
AND, and each cast stands behind a CASE on the value's JSON type, so that no row can make it fail.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from sqlalchemy import REAL, Double, String, Text, and_, case, cast, false, func, literal, or_, true
from sqlalchemy.dialects.postgresql import JSONB, array
from sqlalchemy.sql import ColumnElement

from pilotwave_server.selector.ast import MAX_NUMBER_LENGTH, ORDER, Condition, Op, Selector
from pilotwave_server.selector.parse import refuse_runs

_COMPARE: dict[Op, Callable[[Any, Any], ColumnElement[bool]]] = {
    Op.GT: operator.gt,
    Op.GE: operator.ge,
    Op.LT: operator.lt,
    Op.LE: operator.le,
}


class _Value:
    """A device's value of one key, as three SQL expressions; each is NULL where it is not that."""

    text: ColumnElement[Any]  # text, and true/false as text
    number: ColumnElement[Any]  # a JSON number
    decimal: ColumnElement[Any]  # text that is a plain decimal number


def compile_sql(
    selector: Selector, labels: Any, facts: Any, *, dialect: str
) -> ColumnElement[bool]:
    """Return the WHERE expression over the JSON columns `labels` and `facts`.

    `dialect` is the database's name, "sqlite" or "postgresql". BadSelector if it asks what devices
    run: `inventory/finding.py` compiles that.
    """
    refuse_runs(selector)
    make = _SqliteValue if dialect == "sqlite" else _PostgresqlValue
    leaves = [_leaf(c, make(c.name, facts if c.is_fact else labels)) for c in selector.conditions]
    return and_(true(), *leaves)


def _leaf(condition: Condition, value: _Value) -> ColumnElement[bool]:
    op = condition.op
    if op in ORDER:
        limit = literal(condition.numbers[0], Double)
        either = func.coalesce(value.number, value.decimal)
        return func.coalesce(_COMPARE[op](either, limit), false())
    if op in (Op.SET, Op.UNSET):
        there = or_(value.text != "false", value.number.is_not(None))
        is_set: ColumnElement[bool] = func.coalesce(there, false())
        return is_set if op is Op.SET else is_set.is_(false())
    texts = value.text.in_(condition.values)
    numbers = value.number.in_(condition.numbers) if condition.numbers else false()
    is_in: ColumnElement[bool] = or_(func.coalesce(texts, false()), func.coalesce(numbers, false()))
    return is_in if op is Op.IN else is_in.is_(false())


class _SqliteValue(_Value):
    def __init__(self, key: str, column: Any) -> None:
        # a key holds no quote or backslash (names.check_selector_key): the path needs no escape
        path = literal(f'$."{key}"', String)
        value = func.json_extract(column, path, type_=Text)
        kind = func.json_type(column, path, type_=Text)
        self.text = case(
            (kind == "text", value), (kind == "true", "true"), (kind == "false", "false")
        )
        self.number = case((kind.in_(("integer", "real")), cast(value, REAL)))
        digits = case((func.substr(value, 1, 1) == "-", func.substr(value, 2)), else_=value)
        plain = and_(
            digits.op("GLOB")("[0-9]*"),
            digits.op("GLOB")("*[0-9]"),
            ~digits.op("GLOB")("*[^0-9.]*"),
            ~digits.op("GLOB")("*.*.*"),
            func.length(value) <= MAX_NUMBER_LENGTH,
        )
        self.decimal = case((kind == "text", case((plain, cast(value, REAL)))))


class _PostgresqlValue(_Value):
    def __init__(self, key: str, column: Any) -> None:
        value = column.op("->", return_type=JSONB)(literal(key, String))
        kind = func.jsonb_typeof(value, type_=Text)
        bare = value.op("#>>", return_type=Text)(array([], type_=Text))
        self.text = case((kind.in_(("string", "boolean")), bare))
        self.number = case((kind == "number", cast(bare, Double)))
        plain = and_(bare.op("~")(r"^-?[0-9]+(\.[0-9]+)?$"), func.length(bare) <= MAX_NUMBER_LENGTH)
        self.decimal = case((kind == "string", case((plain, cast(bare, Double)))))
