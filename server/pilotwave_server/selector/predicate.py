"""Compile a selector to a Python function of a device's labels and facts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from pilotwave_protocol.fields import Scalar
from pilotwave_server.selector.ast import Condition, Op, Selector, plain_number
from pilotwave_server.selector.parse import refuse_runs

Facts = Mapping[str, Scalar]
Predicate = Callable[[Mapping[str, str], Facts], bool]
_Test = Callable[[Scalar | None], bool]

_ORDER: dict[Op, Callable[[float, float], bool]] = {
    Op.GT: operator.gt,
    Op.GE: operator.ge,
    Op.LT: operator.lt,
    Op.LE: operator.le,
}


def compile_predicate(selector: Selector) -> Predicate:
    """Return the function that says whether a device with these labels and facts is selected.

    BadSelector if it asks what devices run.
    """
    refuse_runs(selector)
    tests = tuple((c.is_fact, c.name, _test(c)) for c in selector.conditions)

    def selects(labels: Mapping[str, str], facts: Facts) -> bool:
        for is_fact, name, test in tests:
            if not test(facts.get(name) if is_fact else labels.get(name)):
                return False
        return True

    return selects


def _test(condition: Condition) -> _Test:
    op = condition.op
    if op is Op.SET:
        return _is_set
    if op is Op.UNSET:
        return lambda value: not _is_set(value)
    if op in _ORDER:
        return _compares(_ORDER[op], condition.numbers[0])
    is_in = _is_in(condition)
    return is_in if op is Op.IN else lambda value: not is_in(value)


def _is_set(value: Scalar | None) -> bool:
    return value is not None and value is not False and value != "false"


def _is_in(condition: Condition) -> _Test:
    texts, numbers = frozenset(condition.values), frozenset(condition.numbers)

    def is_in(value: Scalar | None) -> bool:
        if isinstance(value, bool):
            return ("true" if value else "false") in texts
        if isinstance(value, str):
            return value in texts
        return value is not None and float(value) in numbers

    return is_in


def _compares(compare: Callable[[float, float], bool], limit: float) -> _Test:
    def compares(value: Scalar | None) -> bool:
        if value is None or isinstance(value, bool):
            return False
        number = plain_number(value) if isinstance(value, str) else float(value)
        return number is not None and compare(number, limit)

    return compares
