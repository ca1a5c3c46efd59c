"""The selector's grammar and meaning, row by row; `test_selector_sql.py` has the SQL."""

from __future__ import annotations

import pytest
from hypothesis import given

from pilotwave_protocol.fields import Scalar
from pilotwave_server.selector import BadSelector, Op, compile_predicate, parse
from tests.server.groups.strategies import selectors

LABELS = {"site": "berlin", "rack": "12", "dock": "12.50", "quote": "O'Brien", "retired": "false"}
FACTS: dict[str, Scalar] = {
    "hw": "orin",
    "battery": 42,
    "load": 0.5,
    "metered": False,
    "idle": True,
    "site": "paris",
    "runtime.onnxruntime": "1.23.2",
}

HOLDS = [
    "site=berlin",
    "fact.site=paris",  # its own word, of the same name
    "site == berlin",
    "site!=paris",
    "fact.hw in (orin, nano)",
    "fact.hw notin (nano)",
    "fact.battery>20, site=berlin",
    "fact.battery = 42.0",  # a number equals whatever writes the same number
    "fact.battery in (41, 42)",
    "fact.battery<=42",
    "fact.load<1, fact.load>0.4",
    "rack>9",  # as numbers: as text "12" would be before "9"
    "dock=12.50",
    "fact.idle",
    "fact.idle=true",
    "!fact.metered",  # it is there, and it says false
    "fact.metered=false",
    "!retired",
    "!quarantined",  # not there at all
    "quarantined!=yes",
    "quarantined notin (yes)",
    "*",
    " \t site = berlin ,\n fact.idle ",
    'quote="O\'Brien"',
    r"quote='O\'Brien'",
    "fact.runtime.onnxruntime=1.23.2",
]

FAILS = [
    "site=Berlin",  # letter by letter
    "site=berlin, fact.hw=nano",
    "fact.hw notin (orin)",
    "fact.battery>42",
    "dock=12.5",  # text is compared as text
    "fact.metered",
    "retired",
    "quarantined",
    "missing>0",  # no number, no order
    "missing<=0",
    "site>0",
    "fact.idle>0",  # true is not 1
    "fact.idle=1",
    "fact.hw!=orin",
    "hw=orin",  # a fact is no label
    "hw",
    "battery>20",
    "fact.rack=12",  # and a label no fact
    "fact.site=berlin",
    "site=paris",
]


@pytest.mark.parametrize("text", HOLDS)
def test_selector_holds(text: str) -> None:
    assert compile_predicate(parse(text))(LABELS, FACTS)


@pytest.mark.parametrize("text", FAILS)
def test_selector_does_not_hold(text: str) -> None:
    assert not compile_predicate(parse(text))(LABELS, FACTS)


WRONG = [
    ("", 1, "expected a condition"),
    ("site=", 6, "expected a value"),
    ("site=berlin,", 13, "expected a condition"),
    ("site=berlin hw=orin", 13, "expected a comma or the end; got 'hw'"),
    (",site", 1, "expected a condition"),
    ("!", 2, "expected a key after !"),
    ("!!site", 2, "expected a key after !"),
    ("Site=berlin", 1, "label key"),
    ("s" * 65, 1, "label key"),
    ("site in berlin", 9, "expected ( and a list"),
    ("site in ()", 10, "expected a value"),
    ("site in (a", 11, "expected a comma or )"),
    ("site in (a b)", 12, "expected a comma or )"),
    ("site ~ berlin", 6, "expected one of"),
    ("battery>full", 9, "expected a number"),
    ("battery>1e3", 9, "expected a number"),
    ("battery>1234567890123456789", 9, "expected a number"),
    ("battery=>3", 9, "expected a value"),
    ("site='berlin", 6, "expected a closing '"),
    ("site='ber\\lin'", 11, "expected a quote or a backslash"),
    ("fact.runtime.onnxruntime>=1.20", 1, "is a version, not a number"),
    ("runtime.onnxruntime>=1.20", 1, "is a version, not a number"),
    ("fact.=1", 1, "fact key"),
    ("fact.Arch=1", 1, "fact key"),
    ("fact." + "s" * 65, 1, "fact key"),
    ("*, site", 2, "expected the end after *"),
    ("site=*", 6, "expected a value"),
    ("site" + " " * 5000, 4097, "at most 4096"),
    (",".join(["a"] * 65), 129, "at most 64 conditions"),
    ("a in (" + ",".join(["b"] * 257) + ")", 519, "at most 256 values"),
    ("a=" + "b" * 257, 3, "at most 256 characters"),
]


@pytest.mark.parametrize(("text", "position", "expected"), WRONG)
def test_error_names_the_position_and_what_was_expected(
    text: str, position: int, expected: str
) -> None:
    with pytest.raises(BadSelector) as caught:
        parse(text)
    assert (caught.value.position, expected in str(caught.value)) == (position, True), caught.value


@pytest.mark.parametrize("text", ["tier=gold", "tier", "tier in (gold)", "tier!=silver, tier"])
def test_a_fact_does_not_pose_as_a_label(text: str) -> None:
    """A device that reported tier=gold joined the group of those labelled so, and got its model."""
    selects = compile_predicate(parse(text))
    assert not selects({}, {"tier": "gold", "fact.tier": "gold", "label.tier": "gold"})
    assert selects({"tier": "gold"}, {"tier": "silver"})


def test_a_fact_whose_key_begins_with_fact_is_asked_by_its_whole_key() -> None:
    assert compile_predicate(parse("fact.fact.x=1"))({}, {"fact.x": "1"})
    assert not compile_predicate(parse("fact.x=1"))({"fact.x": "1"}, {"fact.x": "1"})


def test_equality_is_membership_of_one() -> None:
    assert [c.op for c in parse("a=b, a!=b").conditions] == [Op.IN, Op.NOT_IN]


@given(selectors())
def test_written_selector_reads_as_itself(text: str) -> None:
    selector = parse(text)
    assert parse(str(selector)) == selector
