"""The audit log, and search over devices, versions and rollouts."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from pilotwave_server.dashboard.pages import Look, page_router
from pilotwave_server.deps import ReadSession
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.events import audit_routes as api
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.paging import Paging
from pilotwave_server.registry.tables import ModelRow, VersionRow
from pilotwave_server.rollouts.tables import RolloutRow

router = page_router()
Text = Annotated[str, Query(max_length=300)]
FEW = 20


@router.get("/audit")
def audit(
    page: Look,
    session: ReadSession,
    paging: Paging,
    object: Text = "",  # the API's own name for it
    actor: Text = "",
    verb: Text = "",
) -> Response:
    """Who did what to which thing, the newest first."""
    found = api.list_events(
        page.actor,
        session,
        paging,
        object=object or None,
        actor=actor or None,
        verb=verb or None,
    )
    head = api.get_head(page.actor, session)
    return page.render(
        "audit.html", events=found, head=head, object=object, actor=actor, verb=verb,
        api="/api/v1/events",
    )  # fmt: skip


@router.get("/search")
def search(
    page: Look, session: ReadSession, q: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """What begins with the words, in each kind of thing. One exact hit leads straight there."""
    words = q.strip().lower()
    model, _, version = words.partition(" ")
    found: dict[str, list[tuple[str, str]]] = {"devices": [], "versions": [], "rollouts": []}
    if words:
        found["devices"] = [
            (name, f"/devices/{name}") for name in _starting(session, DeviceRow.name, words)
        ]
        found["versions"] = _versions(session, model, version)
        found["rollouts"] = _rollouts(session, words)
        found["groups"] = [
            (name, f"/groups/{name}") for name in _starting(session, GroupRow.name, words)
        ]
        found["models"] = [
            (name, f"/models/{name}") for name in _starting(session, ModelRow.name, words)
        ]
    hits = [hit for kind in found.values() for hit in kind]
    if len(hits) == 1 and hits[0][0].lower() == words:
        return page.go(hits[0][1])
    return page.render("search.html", q=q, found=found, none=not hits)


def _starting(session: ReadSession, column: InstrumentedAttribute[str], words: str) -> list[str]:
    """Names that begin with the words: a range, so that the index finds them."""
    query = select(column).where(column >= words, column < words + "\U0010ffff")
    return list(session.scalars(query.order_by(column).limit(FEW)))


def _versions(session: ReadSession, model: str, version: str) -> list[tuple[str, str]]:
    v = VersionRow
    query = select(v.model, v.version).order_by(v.id.desc()).limit(FEW)
    if version:
        query = query.where(v.model == model, v.version.startswith(version, autoescape=True))
    else:
        query = query.where(v.version.startswith(model, autoescape=True))
    return [(f"{m} {n}", f"/models/{m}/{n}") for m, n in session.execute(query)]


def _rollouts(session: ReadSession, words: str) -> list[tuple[str, str]]:
    r = RolloutRow
    query = select(r.id, r.model, r.version).order_by(r.id.desc()).limit(FEW)
    if words[0] == "r" and words[1:].isdecimal() and len(words) < 19:
        query = query.where(r.id == int(words[1:]))
    else:
        query = query.where(r.model == words.partition(" ")[0])
    rows = session.execute(query)
    exact = words[0] == "r" and words[1:].isdecimal()
    return [(f"r{i}" if exact else f"r{i}: {m} {v}", f"/rollouts/r{i}") for i, m, v in rows]
