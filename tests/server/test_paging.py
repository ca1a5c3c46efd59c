"""Pages: each row once, in order, whatever comes or goes between two requests."""

from __future__ import annotations

from typing import Any

import httpx

from pilotwave_server.audit.service import record
from pilotwave_server.db import Database
from tests.server.fleet_fixtures import Fleet, fleet, only_sqlite, published

__all__ = ["fleet", "published"]
API = "/api/v1"


def fill(db: Database, clock: Any, names: list[str]) -> None:
    with db.write() as session:
        for name in names:
            record(session, actor="server", verb="test", object=f"test/{name}", now=clock())
            session.flush()


def walk(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = client.get(f"{API}/events", params={**params, **more}).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
        assert len(page["items"]) == params["limit"]


def test_pages_hold_each_row_once_and_in_order(
    viewer: httpx.Client, db: Database, clock: Any
) -> None:
    fill(db, clock, [str(n) for n in range(23)])
    rows = walk(viewer, limit=5, verb="test")
    assert [row["object"] for row in rows] == [f"test/{n}" for n in reversed(range(23))]


def test_a_full_last_page_has_no_cursor(viewer: httpx.Client, db: Database, clock: Any) -> None:
    fill(db, clock, ["a", "b", "c", "d"])
    page = viewer.get(f"{API}/events", params={"limit": 4, "verb": "test"}).json()
    assert (len(page["items"]), page["next_cursor"]) == (4, None)


def test_rows_that_come_between_two_pages_shift_nothing(
    viewer: httpx.Client, db: Database, clock: Any
) -> None:
    fill(db, clock, ["a", "b", "c"])
    first = viewer.get(f"{API}/events", params={"limit": 2, "verb": "test"}).json()
    fill(db, clock, ["d"])
    cursor = first["next_cursor"]
    second = viewer.get(f"{API}/events", params={"limit": 2, "verb": "test", "cursor": cursor})
    assert [row["object"] for row in second.json()["items"]] == ["test/a"]


def test_text_keys_page_too(admin: httpx.Client) -> None:
    for n in range(5):
        admin.post(f"{API}/tokens", json={"name": f"t{n}", "role": "viewer"})
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = admin.get(f"{API}/tokens", params=params).json()
        seen += [row["id"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen)
    assert len(set(seen)) == 6


@only_sqlite
def test_each_list_that_says_how_many_there_are_says_so_on_every_page(
    fleet: Fleet, admin: httpx.Client
) -> None:
    """Counts are of the whole list, by its filters, and not of the page."""
    fleet.device("cam-1", line="a")
    for name in ("a", "b", "c"):
        fleet.group(name, f"line={name}")
    wish = {"model": "detector", "version": "1.1.0", "policy": "standard", "allow_empty": True}
    for name in ("a", "b"):
        fleet.assign(name, "1.0.0")
        answer = fleet.operator.post("/api/v1/rollouts", json={**wish, "group": name})
        assert answer.status_code == 201, answer.text
    admin.post(f"{API}/webhooks", json={"name": "w", "url": "https://example.com/w"})
    admin.post(f"{API}/people", json={"name": "ada", "role": "viewer"})
    admin.put(f"{API}/site-limits", json={"site": "berlin", "downloads": 2})
    for path, query in [
        ("groups", ""),
        ("models", ""),
        ("models/detector/versions", ""),
        ("rollouts", ""),
        ("rollouts", "&group=a"),
        ("rollouts", "&model=detector&state=draft"),
        ("rollouts", "&state=running"),
        ("policies", ""),
        ("tokens", ""),
        ("people", ""),
        ("webhooks", ""),
        ("enrolment-codes", ""),
        ("site-limits", ""),
    ]:
        whole = admin.get(f"{API}/{path}?limit=500{query}").json()
        assert whole["total"] == len(whole["items"]), f"{path}{query}"
        first = admin.get(f"{API}/{path}?limit=1{query}").json()
        assert first["total"] == whole["total"], f"{path}{query}"
    assert admin.get(f"{API}/rollouts?group=a").json()["total"] == 1


@only_sqlite
def test_a_policy_saved_in_place_of_a_built_in_one_is_counted_once(admin: httpx.Client) -> None:
    before = admin.get(f"{API}/policies").json()["total"]
    document = {"document": {"waves": [{"percent": "100%"}]}}
    for name in ("standard", "mine", "mine"):
        answer = admin.put(f"{API}/policies/{name}", json=document)
        assert answer.status_code == 200, answer.text
    listed = admin.get(f"{API}/policies").json()
    assert listed["total"] == before + 1 == len(listed["items"])
