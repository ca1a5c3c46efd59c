"""What calls show of a simulated version: in use, and in shadow beside the one that serves.

Many calls are drawn as fewer that count for several.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from pilotwave_cli.simulate.profile import Behaviour, Metrics
from pilotwave_protocol import shadow
from pilotwave_protocol.sketch import Sketch

_DRAWS = 60
_NOISE = 0.05


def shadow_calls(calls: int, conditions: Mapping[str, object]) -> int:
    """Return how many of so many calls go to both versions, by an entry's conditions."""
    told = conditions.get(shadow.SHADOW)
    return 0 if told is None else round(calls * shadow.read_shadow(told).share)


def in_use(calls: int, m: Metrics, does: Behaviour, chance: random.Random) -> dict[str, Sketch]:
    """Return, by metric, what so many calls of a version measured."""
    rate = min(1.0, max(0.0, m.error + does.error_added))
    draws = min(calls, _DRAWS)
    each = calls // draws
    found = {"latency_ms": Sketch(), "error": Sketch(), "score": Sketch()}
    median = math.log(m.latency_ms * max(does.latency_factor, 1e-6))
    for _ in range(draws):
        found["latency_ms"].add(chance.lognormvariate(median, m.spread), each)
        found["error"].add(float(chance.random() < rate), each)
        found["score"].add(chance.gauss(m.score + does.score_added, m.score_spread), each)
    return found


def in_shadow(
    calls: int, m: Metrics, serves: Behaviour, tried: Behaviour, chance: random.Random
) -> dict[str, Sketch]:
    """Return, by metric, what so many calls show of `tried` beside `serves`."""
    draws = min(calls, _DRAWS)
    slower = math.log(max(tried.latency_factor, 1e-6) / max(serves.latency_factor, 1e-6))
    score = tried.score_added - serves.score_added
    found = {metric: Sketch() for metric in shadow.SHADOW_METRICS - {shadow.DISTANCE}}
    for n in range(draws):
        each = calls // draws + (n < calls % draws)
        drawn = {
            shadow.DISAGREE: float(chance.random() < tried.disagreement),
            shadow.ERROR: float(chance.random() < tried.error_added),
            shadow.NONFINITE: 0.0,
            shadow.LATENCY_RATIO: chance.lognormvariate(slower, _NOISE),
            shadow.SCORE_CHANGE: chance.gauss(score, m.score_spread * _NOISE),
            shadow.MEMORY_RATIO: tried.memory_factor / serves.memory_factor,
            shadow.DROPPED: 0.0,
        }
        for metric, value in drawn.items():
            found[metric].add(value, each)
    return found
