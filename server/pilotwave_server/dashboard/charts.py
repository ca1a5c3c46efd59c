"""Charts as plain values: what `static/charts.js` draws, and the same as rows of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pilotwave_protocol.reference import LOW_CONFIDENCE
from pilotwave_server.telemetry.distribution import Distribution
from pilotwave_server.telemetry.routes import CourseView

ROWS = 8
BOUND = "(bound)"
TONES = 6  # colours of the style sheet, s0 to s5


@dataclass(frozen=True)
class Series:
    """One line or layer. `tone` is its colour; `dashed` sets the second line of a version apart."""

    name: str
    values: list[float | None]
    tone: int
    dashed: bool = False

    @property
    def last(self) -> float | None:
        """The newest value there is."""
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True)
class Chart:
    """Values over `times` (seconds since 1970). `kind` is `stack` or `lines`; `unit` is `devices`,
    `ms`, `%` or empty."""

    title: str
    kind: str
    times: list[int]
    series: list[Series]
    unit: str = ""

    @property
    def plain(self) -> dict[str, Any]:
        """What the script reads."""
        series = [
            {"name": s.name, "values": s.values, "tone": s.tone, "dashed": s.dashed}
            for s in self.series
        ]
        return {"kind": self.kind, "unit": self.unit, "times": self.times, "series": series}

    @property
    def rows(self) -> list[tuple[datetime, list[float | None]]]:
        """At most `ROWS` moments, the newest first, with each series' value."""
        step = max(1, -(-len(self.times) // ROWS))
        places = range(len(self.times) - 1, -1, -step)
        return [
            (
                datetime.fromtimestamp(self.times[n], timezone.utc),
                [s.values[n] for s in self.series],
            )
            for n in places
        ]


def tone_of(counter: int) -> int:
    """The colour of a version, by its release counter: the same one wherever it is shown, and
    another than its neighbours'."""
    return counter % TONES


def of_versions(
    model: str,
    found: Distribution,
    *,
    order: Sequence[str] = (),
    counters: Mapping[tuple[str, str], int],
) -> Chart:
    """How many devices ran each version: a layer for each, in `order`, then those that are gone."""
    names = [*order, *sorted(found.devices.keys() - set(order))]
    tones = {name: tone_of(counters.get((model, name), 0)) for name in names}
    series = [
        Series(name, list(found.devices[name]), tones[name])
        for name in names
        if name in found.devices
    ]
    times = [round(at.timestamp()) for at in found.times]
    return Chart(model, "stack", times, series, "devices")


Bounds = Mapping[tuple[str, str], float]
"""The share that a metric of a model may reach before it counts as drift."""


def of_courses(courses: Sequence[CourseView], bounds: Bounds) -> dict[str, list[Chart]]:
    """By model, a chart of each metric: a line for the mean and, but for shares, one for the 95th
    percentile of each version; where the metric has a bound, a line for that."""
    by_metric: dict[tuple[str, str], list[CourseView]] = defaultdict(list)
    for course in courses:
        by_metric[course.model, course.metric].append(course)
    charts: dict[str, list[Chart]] = defaultdict(list)
    for (model, metric), found in by_metric.items():
        charts[model].append(_of_metric(metric, found, bounds.get((model, metric))))
    return charts


def _of_metric(metric: str, courses: Sequence[CourseView], bound: float | None) -> Chart:
    is_share = metric in ("error", LOW_CONFIDENCE) or bound is not None
    scale = 100 if is_share else 1
    unit = "%" if is_share else "ms" if metric.endswith("_ms") else ""
    times = sorted({round(p.at.timestamp()) for course in courses for p in course.points})
    place = {at: n for n, at in enumerate(times)}
    series = []
    for tone, course in enumerate(courses):
        means: list[float | None] = [None] * len(times)
        highs: list[float | None] = [None] * len(times)
        for point in course.points:
            n = place[round(point.at.timestamp())]
            means[n], highs[n] = round(point.mean * scale, 6), round(point.p95 * scale, 6)
        series.append(Series(course.version, means, tone % TONES))
        if not is_share:
            series.append(Series(f"{course.version} p95", highs, tone % TONES, dashed=True))
    if bound is not None:
        line: list[float | None] = [round(bound * scale, 6)] * len(times)
        series.append(Series(BOUND, line, len(courses) % TONES, dashed=True))
    return Chart(metric, "lines", times, series, unit)
