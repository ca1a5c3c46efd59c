"""What a shadow wave says between server, agent and application.

An entry whose conditions hold `shadow` names a candidate that is fetched, tested and kept beside
the version that serves, and never switched to. What applications measure of the pair comes back as
windows of the metrics named here, for the candidate's version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pilotwave_protocol.errors import BadMessage

SHADOW = "shadow"
"""The condition of an entry, and the link to the candidate beside `current`."""
SHADOW_FILE = "shadow.json"
"""What applications read of a shadow, in the folder where they tell the agent how they are."""
SHADOW_SCHEMA = "pilotwave/shadow/1"
RESERVED_PREFIX = "shadow_"
"""No metric of an application's own may begin so."""

DISAGREE = "shadow_disagree"
ERROR = "shadow_error"
NONFINITE = "shadow_nonfinite"
LATENCY_RATIO = "shadow_latency_ratio"
SCORE_CHANGE = "shadow_score_change"
DISTANCE = "shadow_distance"
MEMORY_RATIO = "shadow_memory_ratio"
DROPPED = "shadow_dropped"
SHADOW_METRICS = frozenset(
    {DISAGREE, ERROR, NONFINITE, LATENCY_RATIO, SCORE_CHANGE, DISTANCE, MEMORY_RATIO, DROPPED}
)

MOST_CORES = 64.0
MOST_CALLS = 1_000_000_000


@dataclass(frozen=True)
class Shadow:
    """How a candidate is tried: on which share of the inputs, with which share of one core, and
    how many calls of a pair a device makes before it counts."""

    share: float
    cpu: float
    min_calls: int

    def to_plain(self) -> dict[str, Any]:
        """Write it as the condition of an entry says it."""
        return asdict(self)


def read_shadow(value: object) -> Shadow:
    """Read the condition `shadow` of an entry. Raises `BadMessage`."""
    if not isinstance(value, Mapping):
        raise BadMessage(f"shadow: expected share, cpu and min_calls; got {ascii(value)[:80]}")
    calls = value.get("min_calls")
    if not isinstance(calls, int) or isinstance(calls, bool) or not 0 <= calls <= MOST_CALLS:
        raise BadMessage(f"shadow.min_calls: expected 0 to {MOST_CALLS}; got {ascii(calls)[:80]}")
    share, cpu = _share(value, "share", 1.0), _share(value, "cpu", MOST_CORES)
    return Shadow(share, cpu, calls)


def _share(value: Mapping[str, Any], key: str, most: float) -> float:
    found = value.get(key)
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    if found is None or not is_number or not math.isfinite(found) or not 0 < found <= most:
        got = ascii(found)[:80]
        raise BadMessage(f"shadow.{key}: expected a number above 0, at most {most:g}; got {got}")
    return float(found)
