"""The first page: how the fleet stands, what is on its way, and what needs a person now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from itertools import groupby
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import Form, Query
from fastapi.responses import Response

from pilotwave_server.attention.service import acknowledge, withdraw
from pilotwave_server.context import Context
from pilotwave_server.dashboard.charts import Chart, of_versions
from pilotwave_server.dashboard.overview import Kept, Overview, rolling_out, take
from pilotwave_server.dashboard.pages import ActOperator, Look, page_router
from pilotwave_server.db import Database
from pilotwave_server.deps import Ctx, Now, ReadSession, WriteSession
from pilotwave_server.devices.silence import silence
from pilotwave_server.errors import NotFound
from pilotwave_server.registry.service import counters
from pilotwave_server.telemetry.distribution import GRAIN, Period, distribution

router = page_router()
Charts = list[Chart]
_kept: WeakKeyDictionary[Database, Kept[Overview]] = WeakKeyDictionary()
_charts: WeakKeyDictionary[Database, Mapping[Period, Kept[Charts]]] = WeakKeyDictionary()
MOST_POINTS = 72
MOST_MODELS = 4


def _overview(context: Context) -> Kept[Overview]:
    return _kept.setdefault(context.db, Kept(lambda: take(context)))


def _over_time(context: Context, period: Period) -> Kept[Charts]:
    keep = timedelta(seconds=min(30, context.settings.distribution_interval_s))
    made: dict[Period, Kept[Charts]] = {
        each: Kept(partial(_draw, context, each), keep=keep) for each in GRAIN
    }
    return _charts.setdefault(context.db, made)[period]


def _draw(context: Context, period: Period) -> Charts:
    now = context.clock()
    running = _by_model(_overview(context).get(now))[:MOST_MODELS]
    with context.db.read() as session:
        found = distribution(
            session,
            models=[model for model, _ in running],
            period=period,
            now=now,
            interval_s=context.settings.distribution_interval_s,
            most=MOST_POINTS,
        )
        known = counters(session)
    return [
        of_versions(model, found[model], order=[version for version, _ in rows], counters=known)
        for model, rows in running
        if model in found
    ]


def _by_model(found: Overview) -> list[tuple[str, list[tuple[str, int]]]]:
    """Models with the versions that run, those on most devices first."""
    models = [
        (model, [(version, count) for _, version, count in rows])
        for model, rows in groupby(found.versions, key=lambda row: row[0])
    ]
    return sorted(models, key=lambda row: -sum(count for _, count in row[1]))


@router.get("/")
def fleet(
    page: Look,
    session: ReadSession,
    context: Ctx,
    now: Now,
    period: Annotated[Period, Query()] = "recent",
) -> Response:
    """Counts, versions, rollouts."""
    found = _overview(context).get(now)
    values: dict[str, Any] = {
        "fleet": found,
        "rollouts": rolling_out(session),
        "models": _by_model(found),
        "tones": found.tones,
    }
    if page.is_fragment:
        return page.render("_fleet_live.html", **values)
    charts = _over_time(context, period).get(now)
    return page.render(
        "fleet.html", **values, charts=charts, period=period, periods=list(GRAIN),
        api="/api/v1/status", also=_also(charts, period),
    )  # fmt: skip


@router.get("/over-time")
def over_time(
    page: Look, context: Ctx, now: Now, period: Annotated[Period, Query()] = "recent"
) -> Response:
    """The charts of the first page: a fragment that asks again by itself."""
    charts = _over_time(context, period).get(now)
    return page.render("_over_time.html", charts=charts, period=period, periods=list(GRAIN))


def _also(charts: Charts, period: Period) -> list[str]:
    return [f"/api/v1/models/{chart.title}/distribution?period={period}" for chart in charts]


@router.post("/attention/{verb}")
def see_to(
    verb: str,
    page: ActOperator,
    session: WriteSession,
    context: Ctx,
    now: Now,
    key: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Acknowledge an entry, or take that back."""
    actor, quiet = str(page.actor), silence(context.settings, now)
    if verb == "acknowledge":
        acknowledge(session, key=key, note="", actor=actor, now=now, quiet=quiet)
    elif verb == "withdraw":
        withdraw(session, key=key, actor=actor, now=now, quiet=quiet)
    else:
        raise NotFound(f"there is no action {verb}")
    _kept.pop(context.db, None)
    return page.go("/")
