"""A gate's course as a picture: places in a drawing of `WIDTH` by `HEIGHT`, and rows of a table.

Above are the figures: a line for the version, a band for the middle half of its devices, a line for
what it is compared with, and what is allowed. Below is the evidence, on a scale of powers of ten,
against what stops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.rollouts.engine.gate_course import GateCourse, Moment, courses_of_gates
from pilotwave_server.rollouts.gates.verdict import Word
from pilotwave_server.rollouts.tables import DecisionRow, RolloutRow
from pilotwave_server.rollouts.transitions import get_rollout

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT = 60, 468
TOP, BOTTOM = 12, 160  # of the figures
EVIDENCE_TOP, EVIDENCE_BOTTOM = 186, 246
ROWS = 8
_MOST = 1e9
_DECISIVE = [str(word) for word in Word if word is not Word.WAIT]
Place = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """What was decided about the wave, and when."""

    word: str
    at: datetime


@dataclass(frozen=True)
class GatePicture:
    """Lines and areas are the `points` of a polyline or polygon. Ticks are places with values."""

    course: GateCourse
    new: str
    old: str
    allowed: str
    band: str
    evidence: str
    stops_y: float
    upwards: tuple[tuple[float, float], ...]
    across: tuple[tuple[float, datetime], ...]
    verdict: Verdict | None
    verdict_x: float

    @property
    def last(self) -> Moment:
        """The newest moment at which the version has a figure."""
        moments = self.course.moments
        return next((m for m in reversed(moments) if m.new is not None), moments[-1])

    @property
    def rows(self) -> list[tuple[datetime, Moment]]:
        """At most `ROWS` moments, the newest first."""
        moments = self.course.moments
        step = -(-len(moments) // ROWS)
        return [(_when(m.at), m) for m in moments[::-1][::step]]


def pictures_of(session: Session, name: str, now: datetime) -> list[GatePicture]:
    """Return a picture for each gate of the rollout's open wave that has windows to judge."""
    rollout = get_rollout(session, name)
    courses = courses_of_gates(session, rollout, now=now)
    verdict = _verdict(session, rollout) if courses else None
    return [picture_of(course, verdict) for course in courses]


def _verdict(session: Session, rollout: RolloutRow) -> Verdict | None:
    """The last decision that the open wave's gates led to."""
    d = DecisionRow
    mine = d.rollout_id == rollout.id, d.wave == rollout.wave, d.verdict.in_(_DECISIVE)
    found = session.execute(select(d.verdict, d.at).where(*mine).order_by(d.id.desc()).limit(1))
    row = found.tuples().first()
    return Verdict(row[0] or "", row[1]) if row else None


def picture_of(course: GateCourse, verdict: Verdict | None) -> GatePicture:
    """Return where everything lies."""
    moments = course.moments
    last = max(moments[-1].at, verdict.at.timestamp() if verdict else 0.0)
    x = _scale(moments[0].at, max(last, moments[0].at + 1), LEFT, RIGHT)
    low, high = _range(moments)
    y = _scale(low, high, BOTTOM, TOP)
    power = _scale(-1.0, math.log10(max(course.stops_at, 1.0)) + 0.7, EVIDENCE_BOTTOM, EVIDENCE_TOP)
    band = [(x(m.at), *map(y, m.middle)) for m in moments if m.middle]
    return GatePicture(
        course,
        new=_points((x(m.at), y(m.new)) for m in moments if m.new is not None),
        old=_points((x(m.at), y(m.old)) for m in moments if m.old is not None),
        allowed=_points((x(m.at), y(m.allowed)) for m in moments if m.allowed is not None),
        band=_points([(at, up) for at, _, up in band] + [(at, down) for at, down, _ in band[::-1]]),
        evidence=_points((x(m.at), power(_power(m))) for m in moments if m.evidence is not None),
        stops_y=round(power(math.log10(max(course.stops_at, 1.0))), 1),
        upwards=tuple((round(y(v), 1), v) for v in _ticks(low, high)),
        across=tuple((round(x(at), 1), _when(at)) for at in (moments[0].at, last)),
        verdict=verdict,
        verdict_x=round(x(verdict.at.timestamp()), 1) if verdict else 0.0,
    )


def _power(moment: Moment) -> float:
    return math.log10(max(moment.evidence or 0.0, 0.1))


def _range(moments: Sequence[Moment]) -> tuple[float, float]:
    """From the least to the greatest that is shown, with room above and below."""
    shown = (v for m in moments for v in (m.new, m.old, m.allowed, *(m.middle or ())))
    held = [min(max(v, -_MOST), _MOST) for v in shown if v is not None] or [0.0]
    low, high = min(held), max(held)
    room = 0.08 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - room, high + room


def _ticks(low: float, high: float) -> Iterator[float]:
    """Two to five round numbers between the two."""
    power = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(power * n for n in (5, 2, 1) if (high - low) / (power * n) >= 2)
    for n in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield round(n * step, 12)


def _scale(low: float, high: float, to_low: float, to_high: float) -> Callable[[float], float]:
    def place(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return to_low + share * (to_high - to_low)

    return place


def _points(places: Iterable[Place]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _when(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)
