"""Devices are found by what they run and how they stand, and acted on many at a time."""

from __future__ import annotations

import csv
import io
import re
import time
import unicodedata
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.names import version_key
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.shown import digest
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.service import create_group
from pilotwave_server.inventory.export import harmless
from pilotwave_server.inventory.finding import DeviceFilter, matching
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.rollouts.bulk import acts as bulk_acts
from pilotwave_server.rollouts.bulk.steps import DeviceAction
from pilotwave_server.selector import BadSelector, compile_predicate, compile_sql, parse
from tests.server.devices.test_silence import statements
from tests.server.fleet_fixtures import Fleet, only_sqlite

NOW = datetime(2026, 11, 29, 3, 0, tzinfo=timezone.utc)
VERSIONS = ("1.0.0", "1.2rc1", "1.2", "1.9", "1.10.0", "2.0.0-beta.1", "2.0.0")


def device(number: int, **more: Any) -> DeviceRow:
    told: dict[str, Any] = {
        "name": f"cam-{number}",
        "public_key": f"{number:064x}",
        "state": "enrolled",
        "revision": 1,
        "created_at": NOW,
        "last_seen": NOW,
        "labels": {},
        "facts": {},
    }
    return DeviceRow(**{**told, **more})


@pytest.fixture
def runs(db: Database) -> Database:
    """cam-0 to cam-6 run one version each; cam-7 runs nothing."""
    with db.write() as session:
        rows = [device(n) for n in range(8)]
        session.add_all(rows)
        session.flush()
        for row, version in zip(rows, VERSIONS, strict=False):
            session.add(
                DeviceModelRow(
                    device_id=row.id,
                    model="detector",
                    state="healthy",
                    current_version=version,
                    since=NOW,
                )
            )
    return db


def found(db: Database, quiet: Silence | None = None, **wanted: Any) -> list[str]:
    quiet = quiet or Silence(NOW, 1200)
    with db.read() as session:
        rules = matching(session, DeviceFilter(**wanted), quiet)
        query = select(DeviceRow.name).where(*rules).order_by(DeviceRow.name)
        return list(session.scalars(query))


@pytest.mark.parametrize(
    ("selector", "numbers"),
    [
        ("runs detector", [0, 1, 2, 3, 4, 5, 6]),
        ("!runs detector", [7]),
        ("runs detector<1.2", [0, 1]),
        ("runs detector<=1.2.0", [0, 1, 2]),  # 1.2 and 1.2.0 are one version
        ("runs detector>1.9", [4, 5, 6]),  # by version, not by text
        ("runs detector=1.10", [4]),
        ("runs detector!=1.10", [0, 1, 2, 3, 5, 6]),  # not cam-7, which does not run it at all
        ("runs detector in (1.9, 2.0.0)", [3, 6]),
        ("runs detector notin (1.9, 2.0.0)", [0, 1, 2, 4, 5]),
        ("runs detector!=9", [0, 1, 2, 3, 4, 5, 6]),
        ("runs other!=1.0", []),
        ("runs detector>=1.2, runs detector<2.0.0", [2, 3, 4, 5]),
        ("runs other<9", []),
    ],
)
def test_what_runs_is_compared_by_the_order_of_versions(
    runs: Database, selector: str, numbers: list[int]
) -> None:
    assert found(runs, selector=selector) == [f"cam-{n}" for n in numbers]
    assert found(runs, selector=str(parse(selector, of_versions=True))) == found(
        runs, selector=selector
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(["<", "<=", ">", ">=", "=", "!="]), st.sampled_from([*VERSIONS, "1.2.1"]))
def test_each_comparison_agrees_with_the_order_of_versions(
    runs: Database, op: str, version: str
) -> None:
    holds = {
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
        "=": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
    }[op]
    right = version_key(version)
    expected = [f"cam-{n}" for n, v in enumerate(VERSIONS) if holds(version_key(v), right)]
    assert found(runs, selector=f"runs detector{op}{version}") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runs detector<", "a value"),
        ("runs detector<x", "position 15: version: expected"),
        ("runs detector in (1.2, x)", "position 24: version: expected"),
        ("runs detector<1.2 y", "a comma or the end"),
        ("runs Detector", "expected"),
    ],
)
def test_a_fault_in_a_version_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(BadSelector, match=said):
        parse(text, of_versions=True)


def test_a_label_may_be_called_runs() -> None:
    assert str(parse("runs")) == "runs"
    assert str(parse("runs=yes, !runs, runs in (a, b)")) == "runs=yes, !runs, runs in (a, b)"


@only_sqlite
def test_no_group_is_made_by_what_devices_run(operator: httpx.Client) -> None:
    """A device would leave such a group by updating, in the middle of a rollout to it."""
    body = {"name": "old", "selector": "site=a, runs detector<1.2"}
    answer = operator.post("/api/v1/groups", json=body)
    assert answer.status_code == 422
    assert "makes no group" in answer.json()["detail"]
    assert answer.json()["position"] == 9


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("runs detector", 1),
        ("!runs detector", 2),
        ("line=runs, runs detector<1.2", 12),
        ("truns=1, runs detector", 10),
        ("note='runs x', site=a,  runs detector in (1.0)", 25),
        ("runs, runs=a, runs detector, runs other", 15),
    ],
)
def test_refused_runs_is_told_with_its_place(text: str, position: int) -> None:
    with pytest.raises(BadSelector) as caught:
        parse(text)
    assert caught.value.position == position


@pytest.mark.parametrize("text", ["runs detector", "!runs detector", "site=a, runs detector<1.2"])
def test_no_compiler_passes_over_what_devices_run(text: str) -> None:
    """A predicate without that condition would select more devices than were meant."""
    found = parse(text, of_versions=True)
    with pytest.raises(BadSelector, match="makes no group"):
        compile_predicate(found)
    for dialect in ("sqlite", "postgresql"):
        with pytest.raises(BadSelector, match="makes no group"):
            compile_sql(found, DeviceRow.labels, DeviceRow.facts, dialect=dialect)


@only_sqlite
def test_what_selects_for_longer_than_a_look_refuses_what_devices_run(four: Fleet) -> None:
    four.group("cams", "site=a")
    text = "runs detector<1.2"
    change = four.operator.put("/api/v1/groups/cams", json={"selector": text})
    waves = [{"canary": {"selector": text}}, {"percent": "100%"}]
    policy = four.operator.put("/api/v1/policies/odd", json={"document": {"waves": waves}})
    assert change.status_code == 422, change.text
    assert policy.status_code == 422, policy.text
    assert "makes no group" in change.text
    assert "makes no group" in policy.text


def test_filters_are_all_held_at_once(runs: Database) -> None:
    with runs.write() as session:
        rows = {row.name: row for row in session.scalars(select(DeviceRow))}
        rows["cam-3"].refusal = {"reason": "directive_expired", "detail": ""}
        rows["cam-5"].state = "decommissioned"
        model = session.get(DeviceModelRow, (rows["cam-1"].id, "detector"))
        assert model is not None
        model.state, model.reason = "failed", "selftest_mismatch"
    assert found(runs, name="AM-1") == ["cam-1"]
    assert found(runs, name="%") == []
    assert found(runs, model="detector", version="1.9") == ["cam-3"]
    assert found(runs, version="1.9", name="cam-4") == []
    assert found(runs, reason="selftest_mismatch") == ["cam-1"]
    assert found(runs, reason="directive_expired") == ["cam-3"]
    assert found(runs, standing="refusing") == ["cam-3"]
    assert found(runs, standing="failing") == ["cam-1", "cam-3"]
    assert found(runs, state="decommissioned", model="detector") == ["cam-5"]


def stands(session: Session, name: str, model: str, state: str, **more: Any) -> None:
    """`model` on a device is in `state`; it runs 1.0.0 unless it is said otherwise."""
    row = session.scalars(select(DeviceRow).where(DeviceRow.name == name)).one()
    told = {"current_version": "1.0.0", "since": NOW, **more}
    session.add(DeviceModelRow(device_id=row.id, model=model, state=state, **told))


@pytest.fixture
def two_models(db: Database) -> Database:
    with db.write() as session:
        session.add_all([device(n) for n in range(6)])
        session.flush()
        stands(session, "cam-0", "a", "failed", reason="disk_full")
        stands(session, "cam-0", "b", "healthy")
        stands(session, "cam-1", "a", "healthy", current_version="2.0.0")
        stands(session, "cam-1", "b", "failed", reason="disk_full")
        # its first install of the model failed, so that it runs none
        stands(session, "cam-2", "a", "failed", reason="disk_full", current_version=None)
        stands(session, "cam-3", "a", "held", reason="disk_full")
        stands(session, "cam-4", "a", "healthy")
        row = session.scalars(select(DeviceRow).where(DeviceRow.name == "cam-4")).one()
        row.refusal = {"reason": "disk_full", "detail": ""}
    return db


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"model": "a"}, [0, 1, 2, 3, 4]),  # cam-2 has tried
        ({"model": "b"}, [0, 1]),
        ({"model": "a", "reason": "disk_full"}, [0, 2, 3]),  # not cam-1, whose b failed
        ({"model": "b", "reason": "disk_full"}, [1]),
        ({"version": "1.0.0", "reason": "disk_full"}, [0, 1, 3]),
        ({"version": "2.0.0", "reason": "disk_full"}, []),  # cam-1 runs it, and b failed
        ({"model": "a", "version": "1.0.0"}, [0, 3, 4]),
        ({"model": "a", "version": "1.0.0", "reason": "disk_full"}, [0, 3]),
        ({"reason": "disk_full"}, [0, 1, 2, 3, 4]),  # a refusal is of no model
        ({"model": "a", "standing": "failing"}, [0, 2, 4]),  # not cam-1, whose b failed
        ({"model": "b", "standing": "failing"}, [1]),
        ({"version": "2.0.0", "standing": "failing"}, []),
        ({"reason": "disk_full", "standing": "failing"}, [0, 1, 2, 4]),  # cam-3 only waits
    ],
)
def test_what_is_asked_of_a_model_is_asked_of_one_model(
    two_models: Database, wanted: dict[str, str], numbers: list[int]
) -> None:
    assert found(two_models, **wanted) == [f"cam-{n}" for n in numbers]


def bulk(fleet: Fleet, **body: Any) -> httpx.Response:
    if "filter" in body and "digest" not in body:
        body |= shown(fleet, **body["filter"])
    return fleet.operator.post("/api/v1/devices/bulk", json=body)


def shown(fleet: Fleet, **wanted: Any) -> dict[str, Any]:
    """What a filter is told to take, as an act on it says it again."""
    found = fleet.operator.get("/api/v1/device-count", params=wanted).json()
    return {"expected": found.pop("devices"), **found}


@pytest.fixture
def four(fleet: Fleet) -> Fleet:
    for n in range(1, 5):
        fleet.device(f"cam-{n}", site="a" if n < 4 else "b")
    return fleet


def audited(fleet: Fleet, verb: str) -> list[str]:
    items = fleet.operator.get("/api/v1/events", params={"verb": verb, "limit": 50}).json()["items"]
    return sorted(item["object"] for item in items)


@only_sqlite
def test_many_devices_are_labelled_each_with_an_event_of_its_own(four: Fleet) -> None:
    answer = bulk(four, action="label", filter={"selector": "site=a"}, labels={"shift": "night"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["matched"], answer.json()["done"]) == (3, 3)
    assert audited(four, "device.label") == ["device/cam-1", "device/cam-2", "device/cam-3"]
    listed = four.operator.get("/api/v1/devices", params={"selector": "shift=night, site=a"})
    assert len(listed.json()["items"]) == 3
    bulk(four, action="label", devices=["cam-1"], labels={"shift": None})
    labels = four.operator.get("/api/v1/devices/cam-1").json()["labels"]
    assert labels == {"site": "a"}


@only_sqlite
def test_what_cannot_be_done_to_one_device_stops_no_other(four: Fleet) -> None:
    answer = bulk(four, action="decommission", devices=["cam-1", "nobody", "cam-2"])
    items = {item["device"]: item for item in answer.json()["items"]}
    assert answer.json()["done"] == 2
    assert (items["nobody"]["done"], items["nobody"]["code"]) == (False, "device_unknown")
    again = bulk(four, action="rollback", devices=["cam-3"], model="detector", reason="bad")
    assert again.json()["items"][0]["code"] == "nothing_to_roll_back_to"
    assert four.operator.get("/api/v1/devices/cam-1").json()["state"] == "decommissioned"


def test_nothing_is_done_to_a_device_that_was_not_shown(four: Fleet) -> None:
    """cam-4 takes the place of cam-1: as many match as before."""
    wish = {"action": "decommission", "filter": {"selector": "site=a"}}
    seen = shown(four, selector="site=a")
    four.operator.patch("/api/v1/devices/cam-1", json={"labels": {"site": "b"}})
    four.operator.patch("/api/v1/devices/cam-4", json={"labels": {"site": "a"}})
    answer = bulk(four, **wish, **seen)
    told = answer.json()
    assert (answer.status_code, told["code"]) == (409, "devices_changed")
    assert "3 devices match now, and 3 were shown: cam-4 joined; cam-1 left" in told["detail"]
    assert (told["found"], told["joined"], told["left"]) == (3, ["cam-4"], ["cam-1"])
    assert audited(four, "device.decommission") == []
    again = bulk(four, **wish, digest=seen["digest"])
    assert "3 devices match now, and other ones were shown. Look again" in again.json()["detail"]
    assert bulk(four, **wish, **shown(four, selector="site=a")).json()["done"] == 3


@only_sqlite
def test_the_number_of_devices_alone_lets_nobody_act(four: Fleet) -> None:
    wish = {"action": "decommission", "filter": {"selector": "site=a"}, "expected": 3}
    answer = four.operator.post("/api/v1/devices/bulk", json=wish)
    assert answer.status_code == 422
    assert "device-count" in answer.text
    assert audited(four, "device.decommission") == []


@only_sqlite
def test_more_devices_than_one_act_takes_have_no_digest(
    four: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotwave_server.devices.shown.MOST", 3)
    assert shown(four) == {"expected": 4, "digest": None, "sketch": None}
    assert shown(four, selector="site=a")["digest"] == digest(["cam-1", "cam-2", "cam-3"])


@only_sqlite
@pytest.mark.parametrize(
    "body",
    [
        {"action": "accept"},
        {"action": "accept", "devices": ["cam-1"], "filter": {}},
        {"action": "label", "devices": ["cam-1"]},
        {"action": "rollback", "devices": ["cam-1"], "model": "detector"},
        {"action": "explode", "devices": ["cam-1"]},
        {"action": "accept", "devices": []},
        {"action": "accept", "filter": {"selectr": "site=a"}, "digest": "0" * 64},
        {"action": "accept", "filter": {"selector": "site=a"}, "digest": "0" * 63},
        {"action": "accept", "filter": {"selector": "site=a"}, "digest": ""},
    ],
)
def test_a_request_that_does_not_say_all_is_refused(four: Fleet, body: dict[str, Any]) -> None:
    assert bulk(four, **body).status_code == 422


@only_sqlite
def test_a_limited_token_reaches_no_other_device(four: Fleet, admin: httpx.Client) -> None:
    four.group("a", "site=a")
    wish = {"name": "night", "role": "operator", "groups": ["a"]}
    made = admin.post("/api/v1/tokens", json=wish)
    assert made.status_code == 201, made.text
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    every = {"filter": {"selector": "*"}, **shown(four, selector="*")}
    body = {"action": "retry", **every, "model": "detector"}
    answer = four.client.post("/api/v1/devices/bulk", json=body, headers=headers)
    items = {item["device"]: item for item in answer.json()["items"]}
    assert [items[f"cam-{n}"]["done"] for n in range(1, 5)] == [True, True, True, False]
    assert items["cam-4"]["code"] == "scope_forbids"
    body = {"action": "decommission", **every}
    answer = four.client.post("/api/v1/devices/bulk", json=body, headers=headers)
    assert answer.json()["done"] == 0


@pytest.mark.parametrize("wish", [{"action": "retry"}, {"action": "rollback", "reason": "bad"}])
def test_the_fleet_is_read_once_for_all_devices_of_an_act(
    published: Any, db: Database, context: Context, wish: dict[str, Any]
) -> None:
    """Groups, selectors and the fleet's picture: as many queries for 50 devices as for 5."""
    with db.write() as session:
        session.add_all([device(n, labels={"site": "a"}) for n in range(55)])
        for name in ("a", "b"):
            made = {"selector": f"site={name}", "description": ""}
            create_group(session, name=name, **made, actor="token/x", now=NOW)
    own = Actor("token", "night", Role.OPERATOR, groups=frozenset({"a"}))
    other = Actor("token", "day", Role.OPERATOR, groups=frozenset({"b"}))
    wanted = DeviceAction(**{"model": "detector", **wish})

    def cost(actor: Actor, first: int, many: int) -> tuple[int, int]:
        """Statements but savepoints in all, and those that read what is the whole fleet's."""
        names = [f"cam-{n}" for n in range(first, first + many)]
        with statements(context.db, mine=True) as sent:
            told = bulk_acts.act(context, actor, names, wanted)
        assert {one.code == "scope_forbids" for one in told} == {actor is other}
        sent = [s for s in sent if not s.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK"))]
        fleet = re.compile(r"FROM (groups|rollouts|quarantines|versions|baselines)")
        return len(sent), sum(bool(fleet.search(s)) for s in sent)

    cost(own, 0, 5)  # what is kept of versions and policies is read once
    few, many = cost(own, 0, 5), cost(own, 5, 50)
    refused = cost(other, 0, 5), cost(other, 5, 50)
    # the server hears of its own commits, and may then read versions and policies once more
    again = 3
    assert abs(few[1] - many[1]) <= again, "the fleet is read once"
    assert abs(few[0] - many[0]) <= again, "many devices cost no more than few"
    assert abs(refused[0][0] - refused[1][0]) <= again, "who may not pays for no device"


@only_sqlite
def test_the_list_is_exported_as_csv_without_formulas(four: Fleet) -> None:
    four.operator.patch("/api/v1/devices/cam-1", json={"labels": {"note": "=1+2", "site": "a"}})
    answer = four.operator.get("/api/v1/devices.csv", params={"selector": "site=a"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["device"] for row in rows] == ["cam-1", "cam-2", "cam-3"]
    assert rows[0]["labels"] == "note==1+2, site=a"
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())
    assert rows[0]["standing"] == "online"


FORMULAS = [
    "=1+2",
    "+1",
    "-1",
    "@SUM(A1)",
    "\uff1d1+2",  # the wide forms of East Asian keyboards
    "\uff0b1",
    "\uff0d1",
    "\uff20SUM(A1)",
    "\ufe661",  # small forms
    "\u207c1",  # raised ones
    "\u22121",  # a minus sign that is no hyphen
    " =1",
    "\t=1",
    "\r=1",
    "\n=1",
    " \t\r\n \uff1d1",
    "\u00a0=1",  # a blank that breaks no line
    "\u3000=1",  # a wide blank
    "\u200b=1",  # a blank of no width
    "\ufeff=1",  # a mark of the order of bytes
    "\x00=1",
    "a;=1",  # two cells where semicolons part them
    "a; \uff1d1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_is_no_formula(text: str) -> None:
    made = harmless(text)
    assert "'" in made
    for cell in made.split(";"):
        seen = unicodedata.normalize("NFKC", cell).replace("\u200b", "").replace("\ufeff", "")
        assert not seen.strip().startswith(("=", "+", "-", "@", "\N{MINUS SIGN}"))
    assert "\n" not in made
    assert "\r" not in made
    assert harmless(made) == made


@pytest.mark.parametrize(
    "text", ["", "a=1", "detector 1.0 (healthy)", "note==1+2", "a, b", "\u2019", "1.5"]
)
def test_a_cell_that_is_no_formula_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@only_sqlite
def test_each_column_of_the_export_is_no_formula(four: Fleet, db: Database) -> None:
    with db.write() as session:
        row = session.scalars(select(DeviceRow).where(DeviceRow.name == "cam-1")).one()
        row.agent, row.labels = "\uff1d1", {"a": "x;=1"}
        row.refusal = {"reason": "\t@x", "detail": ""}
        stands(session, "cam-1", "=m", " +s", reason="\r=r", current_version="\uff0d1")
    text = four.operator.get("/api/v1/devices.csv", params={"selector": "a"}).text
    (row_,) = csv.DictReader(io.StringIO(text, newline=""))
    assert len(text.splitlines()) == 2
    for cell in row_.values():
        assert harmless(cell) == cell


@pytest.mark.slow
@only_sqlite
def test_five_thousand_devices_are_found_and_acted_on_in_time(
    db: Database, admin: httpx.Client
) -> None:
    with db.write() as session:
        session.add_all([device(n, labels={"site": "a"}) for n in range(5000)])
    began = time.monotonic()
    seen = admin.get("/api/v1/device-count", params={"selector": "site=a"}).json()
    body = {"action": "label", "filter": {"selector": "site=a"}, "labels": {"x": "1"}}
    body |= {"digest": seen["digest"], "sketch": seen["sketch"]}
    answer = admin.post("/api/v1/devices/bulk", json=body, timeout=120)
    assert answer.json()["done"] == 5000
    assert time.monotonic() - began < 60
