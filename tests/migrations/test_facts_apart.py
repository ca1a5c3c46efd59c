"""Selectors of before the facts were told apart from the labels: what becomes of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData, Table, text
from sqlalchemy.orm import Session

from pilotwave_protocol.fields import Scalar
from pilotwave_server import migrate
from pilotwave_server.audit.notices import list_notices
from pilotwave_server.db import Database, JsonB
from pilotwave_server.selector import compile_predicate, parse
from tests.server.groups.strategies import KEYS, ORDERED_KEYS, facts, labels, selectors

FILE = next(migrate.scripts_dir().glob("versions/*_facts_apart_from_labels.py"))
BEFORE = "bind_people_by_hand"
AT = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
Machine = tuple[Mapping[str, str], Mapping[str, Scalar]]


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("facts_apart", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


migration = load(FILE)


@dataclass
class Known(migration.Keys):  # type: ignore[misc,name-defined]  # loaded by its path
    """What a made-up fleet knows of each key."""

    machines: Sequence[Machine]

    def of(self, key: str) -> tuple[bool, bool]:
        return any(key in m[0] for m in self.machines), any(key in m[1] for m in self.machines)


def was_in(selector: str, machine: Machine) -> bool:
    """As it was: a key was looked up among the labels, else among the facts."""
    both: Any = {**machine[1], **machine[0]}
    by_fact = {key.removeprefix("fact."): both[key] for key in both if key.startswith("fact.")}
    return compile_predicate(parse(selector))(both, by_fact)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    selector=selectors(KEYS, ORDERED_KEYS),
    machines=st.lists(st.tuples(labels, facts), min_size=1, max_size=8),
)
def test_nobody_comes_to_be_in_a_group_who_was_not(selector: str, machines: list[Machine]) -> None:
    keys = Known(machines)
    new = migration.rewritten(selector, keys)
    selects = compile_predicate(parse(new))
    unclear = any(keys.is_either(c.key) for c in parse(selector).conditions)
    for machine in machines:
        before, after = was_in(selector, machine), selects(*machine)
        assert before or not after, (selector, new)
        assert unclear or before == after, (selector, new)


FLEET: list[tuple[str, dict[str, str], dict[str, Scalar]]] = [
    ("cam-1", {"site": "berlin", "tier": "gold"}, {"arch": "aarch64", "hw": "orin"}),
    ("cam-2", {"site": "paris"}, {"arch": "x86_64", "hw": "nano", "tier": "gold"}),
    ("cam-3", {"fact.x": "1"}, {"arch": "aarch64", "board": "pi"}),
]
# (as it was, as it is, devices before, devices after, whether it is listed)
SELECTORS = [
    ("*", "*", "123", "123", False),
    ("site=berlin", "site=berlin", "1", "1", False),
    ("arch=aarch64", "fact.arch=aarch64", "13", "13", True),
    (" arch = aarch64 ,site", " fact.arch = aarch64 ,site", "1", "1", True),
    ("hw in (orin, nano)", "fact.hw in (orin, nano)", "12", "12", True),
    ("!hw", "!fact.hw", "3", "3", True),
    ("cpu_count>2", "fact.cpu_count>2", "", "", True),  # every agent reports it
    ("unheard=1", "unheard=1", "", "", False),
    # the attack: a fact poses as a label
    ("tier=gold", "tier=gold", "12", "1", True),
    ("tier!=gold", "tier!=gold, fact.tier!=gold", "3", "3", True),
    ("!tier", "!tier, !fact.tier", "3", "3", True),
    ("tier notin ('gold', \"a,b\"), arch", None, "3", "3", True),
    ("site='a, arch=b'", "site='a, arch=b'", "", "", False),
    ("fact.x=1", "x-fact.x=1", "3", "3", True),
    (", ".join(["tier!=x"] * 64), "!nobody, nobody", "123", "", True),
]


def insert(session: Session, into: str, **values: Any) -> None:
    """Add a row of the tables as they were; what it does not say is nothing of its kind."""
    old = Table(into, MetaData(), autoload_with=session.connection())
    for column in old.columns:
        if not column.nullable and column.name not in values:
            kind = column.type.python_type
            values[column.name] = AT if kind is datetime else kind()
    session.execute(old.insert().values(values))


def fill(db: Database) -> None:
    document = {
        "name": "p",
        "waves": [
            {"name": "c", "canary": {"devices": [], "selector": "tier=gold", "group": None}},
            {"name": "all", "percent": 100, "gates": [{"slice_by": ["board", "site", "tier"]}]},
        ],
    }
    with db.write() as session:
        insert(session, "fleet_state", id=1, fleet="f", revision=7, fleet_revision=7)
        for number, (name, own, told) in enumerate(FLEET, 1):
            given = {"name": name, "state": "enrolled", "labels": own, "facts": told}
            insert(session, "devices", id=number, **given)
        for number, (selector, *_) in enumerate(SELECTORS, 1):
            given = {"name": f"g{number}", "kind": "selector", "selector": selector}
            insert(session, "groups", id=number, **given)
        insert(session, "policies", id=1, name="p", version=1, document=document)
        group = {"group_id": 1, "model": "m", "version": "1", "document": document}
        insert(session, "rollouts", id=1, state="running", **group)
        insert(session, "rollouts", id=2, state="completed", **group)
        for number in (1, 2):
            slices = {"board": "pi", "site": "berlin"}
            insert(session, "rollout_devices", rollout_id=number, device_id=1, slices=slices)


@pytest.fixture
def migrated(empty_database_url: str) -> Any:
    migrate.upgrade(empty_database_url, BEFORE)
    db = Database(empty_database_url)
    fill(db)
    migrate.upgrade(empty_database_url, migration.revision)
    yield db
    db.close()


def test_each_stored_selector_keeps_its_meaning_or_narrows_and_is_listed(migrated: Any) -> None:
    with migrated.read() as session:
        stored = dict(session.execute(text("SELECT id, selector FROM groups")).all())
        about = {row.object for row in list_notices(session)}
        revision = session.scalar(text("SELECT fleet_revision FROM fleet_state"))
        query = text("SELECT name, labels FROM devices ORDER BY id").columns(labels=JsonB)
        now = dict(session.execute(query).tuples().all())
    for number, (old, new, before, after, listed) in enumerate(SELECTORS, 1):
        assert new is None or stored[number] == new
        assert (f"group/g{number}" in about) == listed, old
        selects = compile_predicate(parse(stored[number]))
        devices = [(name[-1], now[name], told) for name, _, told in FLEET]
        assert "".join(n for n, own, told in devices if selects(own, told)) == after, old
        assert "".join(n[-1] for n, own, told in FLEET if was_in(old, (own, told))) == before, old
    assert revision == 8, "devices take other orders under a higher number only"
    assert now["cam-3"] == {"x-fact.x": "1"}
    assert "device/cam-3" in about


def test_the_notice_names_who_lost_a_group(migrated: Any) -> None:
    with migrated.read() as session:
        told = {row.object: row.sentence for row in list_notices(session)}
    number = [old for old, *_ in SELECTORS].index("tier=gold") + 1
    assert "cam-2" in told[f"group/g{number}"]
    assert "cam-1" not in told[f"group/g{number}"]


def test_policies_ask_by_the_new_keys(migrated: Any) -> None:
    with migrated.read() as session:
        query = text("SELECT document FROM policies").columns(document=JsonB)
        (document,) = session.scalars(query)
        about = {row.object for row in list_notices(session)}
    assert document["waves"][0]["canary"]["selector"] == "tier=gold"
    assert document["waves"][1]["gates"] == [{"slice_by": ["fact.board", "site", "tier"]}]
    assert "policy/p" in about


def test_what_a_running_rollout_told_apart_goes_on_under_the_new_keys(migrated: Any) -> None:
    with migrated.read() as session:
        asked = text("SELECT rollout_id, slices FROM rollout_devices").columns(slices=JsonB)
        slices = dict(session.execute(asked).tuples().all())
        query = text("SELECT id, document FROM rollouts").columns(document=JsonB)
        documents = dict(session.execute(query).tuples().all())
        about = {row.object for row in list_notices(session)}
    assert slices[1] == {"fact.board": "pi", "site": "berlin"}
    assert slices[2] == {"board": "pi", "site": "berlin"}, "what is over stays as it was"
    keys = ["fact.board", "site", "tier"]
    assert documents[1]["waves"][1]["gates"] == [{"slice_by": keys}]
    assert "rollout/r1" in about
    assert "rollout/r2" not in about
