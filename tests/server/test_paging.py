"""Pages: each row once, in order, whatever comes or goes between two requests."""

from __future__ import annotations

from typing import Any

import httpx

from pilotwave_server.audit.service import record
from pilotwave_server.db import Database

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
