"""Which versions of each model run on how many devices, as it was over time.

A worker counts at each tick, with one aggregated statement over an index, and writes a few rows; no
page counts anything. A tick is a multiple of the interval, so that of several server processes one
writes it. What is kept is bounded: each tick for `KEPT_TICKS` intervals, one an hour for 60 days,
one a day for 3 years; of each model `MOST_VERSIONS` at a tick, the rest under `OTHERS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pilotwave_server.db import Database, upsert
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.telemetry.tables import VersionCountRow

KEPT_TICKS = 600
HOUR_S, DAY_S = 3600, 86_400
KEPT = {HOUR_S: timedelta(days=60), DAY_S: timedelta(days=3 * 366)}
MOST_VERSIONS = 12
MOST_MODELS = 200
OTHERS = "(others)"

Period = Literal["recent", "month", "years"]
GRAIN: Mapping[Period, int] = {"recent": 0, "month": HOUR_S, "years": DAY_S}


@dataclass(frozen=True)
class Distribution:
    """`devices` gives by version as many numbers as there are `times`, oldest first."""

    times: list[datetime]
    devices: dict[str, list[int]]


def count_now(session: Session) -> list[tuple[str, str, int]]:
    """(model, version, devices) of every version that runs somewhere. One pass over an index."""
    m = DeviceModelRow
    query = (
        select(m.model, m.current_version, func.count())
        .where(m.current_version.is_not(None))
        .group_by(m.model, m.current_version)
    )
    return [(model, str(version), count) for model, version, count in session.execute(query)]


def tick_of(now: datetime, interval_s: int) -> datetime:
    """The last multiple of the interval, counted from 1970."""
    at = int(now.timestamp()) // interval_s * interval_s
    return datetime.fromtimestamp(at, timezone.utc)


def note(db: Database, *, now: datetime, interval_s: int) -> bool:
    """Count and write this tick and forget what is too old. False: another wrote it already."""
    at = tick_of(now, interval_s)
    with db.read() as session:
        if session.scalar(select(VersionCountRow.at).where(VersionCountRow.at == at).limit(1)):
            return False
        counts = count_now(session)
    grain = _grain(at, interval_s)
    rows = [
        {"at": at, "model": model, "version": version, "devices": count, "grain_s": grain}
        for model, version, count in _bounded(counts)
    ]
    with db.write() as session:
        upsert(session, VersionCountRow, rows)
        _forget(session, now=now, interval_s=interval_s)
    return True


def _grain(at: datetime, interval_s: int) -> int:
    seconds = int(at.timestamp())
    # the first tick of each hour and day stands for it, whatever the interval
    for grain in (DAY_S, HOUR_S):
        if seconds % grain < interval_s:
            return grain
    return 0


def _bounded(counts: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, str, int]]:
    by_model: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for model, version, count in counts:
        by_model[model].append((count, version))
    for model, found in sorted(by_model.items())[:MOST_MODELS]:
        found.sort(reverse=True)
        yield from ((model, version, count) for count, version in found[:MOST_VERSIONS])
        rest = sum(count for count, _ in found[MOST_VERSIONS:])
        if rest:
            yield model, OTHERS, rest


def _forget(session: Session, *, now: datetime, interval_s: int) -> None:
    v = VersionCountRow
    kept = {0: timedelta(seconds=KEPT_TICKS * interval_s), **KEPT}
    for grain, span in kept.items():
        session.execute(
            delete(v).where(v.grain_s == grain, v.at < now - span),
            execution_options={"synchronize_session": False},
        )


def distribution(
    session: Session,
    *,
    models: Iterable[str],
    period: Period,
    now: datetime,
    interval_s: int,
    most: int = KEPT_TICKS,
) -> dict[str, Distribution]:
    """By model, how many devices ran each version, at `most` ticks at the most: the last
    `KEPT_TICKS`, one an hour, one a day. A model that nothing is known of is left out."""
    v = VersionCountRow
    span = KEPT[GRAIN[period]] if GRAIN[period] else timedelta(seconds=KEPT_TICKS * interval_s)
    query = (
        select(v.model, v.at, v.version, v.devices)
        .where(v.model.in_(list(models)), v.grain_s >= GRAIN[period], v.at >= now - span)
        .order_by(v.at)
    )
    rows: dict[str, list[tuple[datetime, str, int]]] = defaultdict(list)
    for model, at, version, count in session.execute(query):
        rows[model].append((at, version, count))
    return {model: _as_columns(found, most) for model, found in rows.items()}


def _as_columns(rows: list[tuple[datetime, str, int]], most: int) -> Distribution:
    times = sorted({at for at, _, _ in rows})
    step = -(-len(times) // most)
    times = times[::-1][::step][::-1]  # the newest is always there
    place = {at: n for n, at in enumerate(times)}
    devices: dict[str, list[int]] = {}
    for at, version, count in rows:
        if at in place:
            devices.setdefault(version, [0] * len(times))[place[at]] = count
    return Distribution(times, devices)
