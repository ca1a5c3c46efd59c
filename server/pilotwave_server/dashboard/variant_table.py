"""A version's variants beside each other: a table, and a picture of quality against latency.

Figures are what the publisher signed as texts (`metrics`, `NAME.top1`); one that is no number in
its bounds is left out, and nothing stands in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from pilotwave_server.dashboard.charts import TONES
from pilotwave_server.registry.views import VariantView

LARGEST = {"top1": 1, "agreement": 1, "loss_bound": 1, "p05_ms": 10**7, "peak_mb": 10**7}
"""The figures that are shown, and what none of them exceeds."""
WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 24, 44
SMALL, LARGE = 9.0, 24.0
APART = 14.0
"""How far the numbers of two bubbles are from each other, at least."""


@dataclass(frozen=True)
class Row:
    """One variant. `number` is its place in the publisher's order, from 1; figures are None where
    nothing was measured. `fits` counts the fleet's devices that can run it."""

    number: int
    view: VariantView
    figures: Mapping[str, float | None]
    fits: int | None

    @property
    def tone(self) -> int:
        """Its colour in the style sheet."""
        return (self.number - 1) % TONES


@dataclass(frozen=True)
class Bubble:
    """A variant in the picture. `best`: no other is both quicker and better. `label` is where its
    number stands: in the middle, or beside it where another's number is there."""

    row: Row
    x: float
    y: float
    radius: float
    best: bool
    label: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Picture:
    """Quality (`top1` or `agreement`) upwards, milliseconds to the right, area by bytes. `line`
    joins the best; ticks are pairs of place and value."""

    quality: str
    bubbles: tuple[Bubble, ...]
    line: str
    across: tuple[tuple[float, float], ...]
    upwards: tuple[tuple[float, float], ...]


def rows_of(
    variants: Sequence[VariantView], metrics: Mapping[str, str], fits: Mapping[str, int] | None
) -> list[Row]:
    """Return a row for each variant, in the publisher's order."""
    return [
        Row(
            number,
            view,
            {key: figure(metrics.get(f"{view.name}.{key}"), most) for key, most in LARGEST.items()},
            None if fits is None else fits.get(view.name),
        )
        for number, view in enumerate(variants, 1)
    ]


def others(variants: Sequence[VariantView], metrics: Mapping[str, str]) -> dict[str, str]:
    """Return the metrics that the table does not show."""
    known = {f"{v.name}.{key}" for v in variants for key in (*LARGEST, "bytes")}
    return {key: text for key, text in metrics.items() if key not in known}


def figure(text: str | None, most: float) -> float | None:
    """Read a publisher's decimal text from 0 to `most`; anything else is no figure."""
    if text is None or len(text) > 32:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return float(number) if number.is_finite() and 0 <= number <= most else None


def picture_of(rows: Sequence[Row]) -> Picture | None:
    """Draw the variants that have both figures, or None where fewer than two do."""
    measured = (_measured(rows, quality) for quality in ("top1", "agreement"))
    quality, found = max(measured, key=lambda m: len(m[1]) >= 2)
    if len(found) < 2:
        return None
    far = 1.15 * max(ms for _, ms, _ in found) or 1.0
    worst, best = min(q for *_, q in found), max(q for *_, q in found)
    low, high = max(worst - 0.01, 0.0), min(best + 0.01, 1.0)
    largest = max(row.view.size for row, *_ in found) or 1
    bubbles = [
        Bubble(
            row,
            x=round(LEFT + _across() * ms / far, 1),
            y=round(TOP + _down() * (high - q) / (high - low), 1),
            radius=round(max(LARGE * (row.view.size / largest) ** 0.5, SMALL), 1),
            best=not any(_beats(other, (ms, q)) for _, *other in found),
        )
        for row, ms, q in found
    ]
    front = sorted((b.x, b.y) for b in bubbles if b.best)
    return Picture(
        quality,
        tuple(reversed(list(_labelled(bubbles)))),  # small ones stay in sight
        " ".join(f"{x},{y}" for x, y in front),
        tuple((LEFT + _across() * ms / far, ms) for ms in _ticks(0.0, far)),
        tuple((TOP + _down() * (high - q) / (high - low), q) for q in _ticks(low, high)),
    )


def _labelled(bubbles: Sequence[Bubble]) -> Iterator[Bubble]:
    """Yield the bubbles, small ones first, each with the place of its number: away from other
    numbers, and in no other bubble unless in the middle of its own."""
    taken: list[tuple[float, float]] = []

    def is_free(place: tuple[float, float], middle: tuple[float, float]) -> bool:
        away = all(math.dist(place, other) >= APART for other in taken)
        return away and (
            place == middle
            or all(math.dist(place, (b.x, b.y)) > b.radius + APART / 3 for b in bubbles)
        )

    for bubble in sorted(bubbles, key=lambda b: (b.radius, b.row.number)):
        middle = (bubble.x, bubble.y)
        label = next((p for p in _places(bubble) if is_free(p, middle)), middle)
        taken.append(label)
        yield replace(bubble, label=label)


def _places(bubble: Bubble) -> Iterator[tuple[float, float]]:
    """Yield where a bubble's number may stand, the best place first."""
    for far in (0.0, bubble.radius + APART / 2, bubble.radius + 3 * APART / 2):
        for across, down in ((0, -1), (0, 1), (1, 0), (-1, 0)):
            x, y = bubble.x + far * across, bubble.y + far * down
            if LEFT <= x <= WIDTH - APART / 2 and APART / 2 <= y <= HEIGHT - BOTTOM:
                yield round(x, 1), round(y, 1)


def _measured(rows: Sequence[Row], quality: str) -> tuple[str, list[tuple[Row, float, float]]]:
    return quality, list(_with_both(rows, quality))


def _with_both(rows: Sequence[Row], quality: str) -> Iterator[tuple[Row, float, float]]:
    for row in rows:
        ms, found = row.figures["p05_ms"], row.figures[quality]
        if ms is not None and found is not None:
            yield row, ms, found


def _beats(other: Sequence[float], one: tuple[float, float]) -> bool:
    (ms, quality), (slower, worse) = other, one
    return ms <= slower and quality >= worse and (ms, quality) != (slower, worse)


def _ticks(low: float, high: float) -> Iterator[float]:
    """Yield round numbers from `low` to `high`, at most six."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)
    for n in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield n * step


def _across() -> float:
    return WIDTH - LEFT - RIGHT


def _down() -> float:
    return HEIGHT - TOP - BOTTOM
