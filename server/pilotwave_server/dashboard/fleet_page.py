"""The first page: how the fleet stands, what is on its way, and what needs a person now."""

from __future__ import annotations

from itertools import groupby
from weakref import WeakKeyDictionary

from fastapi.responses import Response

from pilotwave_server.context import Context
from pilotwave_server.dashboard.overview import Kept, Overview, take
from pilotwave_server.dashboard.pages import Look, page_router
from pilotwave_server.db import Database
from pilotwave_server.deps import Ctx, Now

router = page_router()
_kept: WeakKeyDictionary[Database, Kept[Overview]] = WeakKeyDictionary()


def _overview(context: Context) -> Kept[Overview]:
    return _kept.setdefault(context.db, Kept(lambda: take(context)))


@router.get("/")
def fleet(page: Look, context: Ctx, now: Now) -> Response:
    """Counts, versions, rollouts."""
    found = _overview(context).get(now)
    models = [
        (model, [(version, count) for _, version, count in rows])
        for model, rows in groupby(found.versions, key=lambda row: row[0])
    ]
    template = "_fleet_live.html" if page.is_fragment else "fleet.html"
    return page.render(template, fleet=found, models=models, api="/api/v1/status")
