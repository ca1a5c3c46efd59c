"""What a simulated device says that it measured of the variants that it is asked to compare."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from pilotwave_cli.simulate.profile import Profile
from pilotwave_protocol.figures import COMPARE, VariantFigures, figures_detail

_NOISE = 0.02


def asked_to_compare(conditions: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return for which class an entry asks to compare which variants; none: it asks nothing."""
    told = conditions.get(COMPARE) or {}
    return str(told.get("of", "")), tuple(told.get("variants", ()))


def compared(
    profile: Profile, slice: str, variants: tuple[str, ...], chance: random.Random
) -> Iterator[str]:
    """Yield what the events say, one for each variant."""
    for variant in variants:
        measure = profile.measure(variant, slice)
        if measure.failed:
            yield figures_detail(variant, VariantFigures(failed=measure.failed))
            continue
        p05_ms = measure.p05_ms * abs(chance.gauss(1, _NOISE))
        found = VariantFigures(p05_ms=p05_ms, cpu_ms=p05_ms, peak_mb=measure.peak_mb)
        yield figures_detail(variant, found)
