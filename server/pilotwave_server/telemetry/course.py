"""How a metric went on a device: at most `MOST` points, the last windows one by one, older ones
merged, so that the same few points tell of the last minutes and of the weeks before. Pure but for
`courses_of`.

A stored point is `[at, seconds, count, mean, p95]`: its end in seconds since 1970, how long it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.sketch import Sketch
from pilotwave_server.telemetry.tables import DeviceMetricRow

MOST = 32
_DIGITS = 5
Stored = list[float]


@dataclass(frozen=True)
class Point:
    """One window or several: `at` is when the last ended, `p95` the highest of theirs."""

    at: datetime
    count: int
    mean: float
    p95: float


@dataclass(frozen=True)
class Course:
    """A metric of a version on a device: all of it, and how it went."""

    model: str
    version: str
    metric: str
    count: int
    mean: float
    p50: float
    p95: float
    points: list[Point]


def extended(
    points: Sequence[Stored], sketch: Sketch, *, begin: datetime, end: datetime, now: datetime
) -> list[Stored]:
    """Return the points with one for this window after them.

    A device's clock may be wrong: no point is later than `now` or earlier than the one before it.
    """
    least = points[-1][0] if points else 0.0
    at = max(round(min(end, now).timestamp()), least)
    seconds = at - min(max(round(begin.timestamp()), least), at)
    new = [at, seconds, sketch.count, _short(sketch.mean), _short(sketch.quantile(0.95))]
    kept = [*points, new]
    return kept if len(kept) <= MOST else _thinned(kept)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _thinned(points: list[Stored]) -> list[Stored]:
    """Merge the two neighbours that are shortest for their age."""
    last = points[-1][0]

    def length(n: int) -> float:
        begin = points[n][0] - points[n][1]
        return (points[n + 1][0] - begin) / (last - begin + 1)

    n = min(range(len(points) - 2), key=length)
    return [*points[:n], _merged(points[n], points[n + 1]), *points[n + 2 :]]


def _merged(one: Stored, other: Stored) -> Stored:
    count = one[2] + other[2]
    mean = (one[3] * one[2] + other[3] * other[2]) / count
    seconds = other[0] - one[0] + one[1]
    return [other[0], seconds, count, _short(mean), max(one[4], other[4])]


def courses_of(session: Session, device_id: int) -> list[Course]:
    """A device's metrics by model and metric, the version that reported last first."""
    m = DeviceMetricRow
    order = (m.model, m.metric, m.updated_at.desc(), m.version)
    rows = session.scalars(select(m).where(m.device_id == device_id).order_by(*order))
    return [_course(row) for row in rows]


def _course(row: DeviceMetricRow) -> Course:
    sketch = Sketch.from_plain(row.sketch)
    return Course(
        model=row.model,
        version=row.version,
        metric=row.metric,
        count=sketch.count,
        mean=sketch.mean,
        p50=sketch.quantile(0.5),
        p95=sketch.quantile(0.95),
        points=[_point(point) for point in row.points],
    )


def _point(stored: Stored) -> Point:
    at, _, count, mean, p95 = stored
    return Point(datetime.fromtimestamp(at, timezone.utc), int(count), mean, p95)
