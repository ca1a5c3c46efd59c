"""The event by which a device says what it measured of a variant that it was asked to compare.

`kind` is `measured`; `detail` is `onnx-int8: p05_ms=0.285 cpu_ms=0.291 load_ms=12.1 peak_mb=19.1`,
or `onnx-int8: failed selftest_mismatch` where the device cannot run it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pilotwave_protocol.errors import BadName
from pilotwave_protocol.names import check_variant

MEASURED = "measured"
COMPARE = "compare"
"""The condition of an entry that names the variants to compare: `{"of": ..., "variants": [...]}`.
`of` is what the server calls the device's class; only agents that say `AGENT_COMPARES` are told."""
MOST_COMPARED = 3
"""No device is asked to compare more at once: the one that it has and two that it fetches."""
MOST = 1e9
_NUMBER = re.compile(r"(\w{2,16})=(\d{1,10}(?:\.\d{1,6})?)", re.ASCII)
_FAILED = re.compile(r"failed (\w{1,64})", re.ASCII)


@dataclass(frozen=True)
class VariantFigures:
    """What one device measured of one variant: the 5th percentile of a call, the CPU time of a
    call, the load, the peak memory and, where a counter exists, the energy of a call. Not there:
    not measured. `failed` is the reason why it does not run there."""

    p05_ms: float | None = None
    cpu_ms: float | None = None
    load_ms: float | None = None
    peak_mb: float | None = None
    energy_mj: float | None = None
    failed: str | None = None

    @property
    def numbers(self) -> Mapping[str, float]:
        """What was measured."""
        return {name: n for name in NUMBERS if (n := getattr(self, name)) is not None}


NUMBERS = tuple(f.name for f in fields(VariantFigures) if f.name != "failed")


def figures_detail(variant: str, figures: VariantFigures) -> str:
    """What the event says."""
    if figures.failed is not None:
        return f"{variant}: failed {figures.failed}"
    words = (f"{name}={min(number, MOST):.6f}" for name, number in figures.numbers.items())
    return f"{variant}: {' '.join(w.rstrip('0').rstrip('.') for w in words)}"


def read_figures(detail: str | None) -> tuple[str, VariantFigures] | None:
    """The variant and its figures, or None where an event says none."""
    variant, _, said = (detail or "").partition(": ")
    try:
        check_variant(variant)
    except BadName:
        return None
    if failed := _FAILED.fullmatch(said):
        return variant, VariantFigures(failed=failed[1])
    found = [_NUMBER.fullmatch(word) for word in said.split(" ")]
    numbers: dict[str, Any] = {
        m[1]: min(float(m[2]), MOST) for m in found if m is not None and m[1] in NUMBERS
    }
    return (variant, VariantFigures(**numbers)) if numbers else None
