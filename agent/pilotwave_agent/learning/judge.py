"""Whether a device may use a head that it has fitted, or goes on with the one it uses. Pure.

The device is its own jury here, with few labels: what passes must be more than chance explains, and
trying again must not help (`pilotwave_protocol.learning.paired`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.paired import doubt_of_try, is_worse, least_gain, shown


@dataclass(frozen=True)
class Pairs:
    """Of `rows` labelled inputs, those that the new way alone has right, and the old way alone."""

    better: int = 0
    worse: int = 0
    rows: int = 0

    @property
    def shows_worse(self) -> bool:
        """Say whether the new way is worse, by more than chance explains."""
        return is_worse(self.better, self.worse)


@dataclass(frozen=True)
class HeadFigures:
    """What the child found of a new head: on held-out labels beside the version's own answers
    (`held_out`) and beside the overlay in use (`beside_last`); how many golden cases kept their
    class; whether every number was finite; how long it is, and what a call takes with it."""

    examples: int
    held_out: Pairs
    beside_last: Pairs
    golden: int
    golden_rows: int
    finite: bool
    distance: float
    p95_ms: float

    def gain(self, tries: int) -> float:
        """Return what held-out labels show, at least, in this try."""
        pairs = self.held_out
        return least_gain(pairs.better, pairs.worse, pairs.rows, doubt=doubt_of_try(tries))


def faults(
    figures: HeadFigures, plan: DevicePlan, *, tries: int, max_ms: float | None
) -> Iterator[str]:
    """Yield why a head may not be used; nothing: it may. `tries` counts this one."""
    if not figures.finite:
        yield "an answer is not finite"
    if not figures.distance <= float(plan.distance) * (1 + 1e-6):
        yield f"it is {figures.distance:.4g} long; the plan allows {plan.distance}"
    if not figures.golden_rows:
        yield "no golden case of the version tells its class"
    elif figures.golden < float(plan.golden) * figures.golden_rows:
        yield (
            f"{figures.golden} of {figures.golden_rows} golden cases keep their class;"
            f" the plan asks for a share of {plan.golden}"
        )
    if max_ms is not None and figures.p95_ms > max_ms:
        yield f"p95 of {figures.p95_ms:.1f} ms with it; at most {max_ms:g} ms are allowed"
    gain, pairs = figures.gain(tries), figures.held_out
    if gain < float(plan.least_gain):
        yield (
            f"{pairs.better} better and {pairs.worse} worse of {pairs.rows} held-out labels show a"
            f" gain of {shown(gain)}; the plan asks for {plan.least_gain}"
        )
    if figures.beside_last.better < figures.beside_last.worse:
        yield "the overlay in use has more of the held-out labels right"
