"""The gates of a shadow wave: each device compares a candidate with the version in use, on the same
inputs. What they look at is in windows that devices report (`pilotwave_protocol.shadow`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pilotwave_protocol import shadow
from pilotwave_server.rollouts.policies import kinds
from pilotwave_server.rollouts.policies.faults import Told
from pilotwave_server.rollouts.policies.kinds import share, whole
from pilotwave_server.rollouts.policies.read_part import PolicyPart, one_of

_TRUE = kinds.Kind("true, for a shadow compares pairs only", lambda value: value is True or None)


@dataclass(frozen=True)
class Disagreement(PolicyPart):
    """The candidate answers otherwise, by the model's comparer, in at most this share of calls."""

    asks: ClassVar = ((shadow.DISAGREE, "mean"),)
    at_most: Annotated[float, share(0.000001, 0.99)] = 0.02


@dataclass(frozen=True)
class Latency(PolicyPart):
    """The candidate takes longer than the version in use by a factor of at most 1 + `min_effect`,
    for the median of a device's calls."""

    asks: ClassVar = ((shadow.LATENCY_RATIO, "p50"),)
    paired: Annotated[bool, _TRUE] = True
    min_effect: Annotated[float, share(0, 10)] = 0.05


@dataclass(frozen=True)
class Score(PolicyPart):
    """The score is worse than that of the version in use by at most `min_effect`, in its own unit,
    for the mean of a device's calls."""

    asks: ClassVar = ((shadow.SCORE_CHANGE, "mean"),)
    min_effect: Annotated[float, share(0, 10)] = 0.02
    worse: Annotated[str, kinds.word("lower", "higher")] = "lower"


@dataclass(frozen=True)
class Errors(PolicyPart):
    """At most this share of the candidate's calls fails, and of at most this share of its answers a
    number is not finite."""

    asks: ClassVar = ((shadow.ERROR, "mean"), (shadow.NONFINITE, "mean"))
    at_most: Annotated[float, share(0.000001, 0.99)] = 0.0001


@dataclass(frozen=True)
class Memory(PolicyPart):
    """The candidate takes at most this many times the memory of the version in use."""

    asks: ClassVar = ((shadow.MEMORY_RATIO, "p50"),)
    at_most: Annotated[float, kinds.number(0.01, 1000)] = 1.5


Limit = Disagreement | Latency | Score | Errors | Memory
LIMITS = ("disagreement", "latency", "score", "errors", "memory")


@dataclass(frozen=True)
class PairedGate(PolicyPart):
    """Exactly one of the five limits is set. `min_devices` is the least sample for a PASS: devices
    that made the wave's `min_calls`. `alpha` bounds the chance of stopping a candidate that keeps
    to the limit on all but one device of 20."""

    also: ClassVar = ("metric", "max_failure_rate")
    slice_by: ClassVar[tuple[str, ...]] = ()
    name: Annotated[str, kinds.text(64)]
    disagreement: Disagreement | None = None
    latency: Latency | None = None
    score: Score | None = None
    errors: Errors | None = None
    memory: Memory | None = None
    min_devices: Annotated[int, whole(1, 1_000_000)] = 1
    alpha: Annotated[float, kinds.ALPHA] = 0.01

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        found = [limit for limit in LIMITS if limit in given]
        yield from one_of(found, *LIMITS)
        if found:
            given.setdefault("name", found[0])

    @property
    def limit(self) -> Limit:
        """What it asks."""
        limits = self.disagreement, self.latency, self.score, self.errors, self.memory
        return next(limit for limit in limits if limit is not None)

    @property
    def asks(self) -> tuple[tuple[str, str], ...]:
        """The metrics that it looks at, each with its statistic: first those that decide, at last
        what says why there may be none."""
        return (*self.limit.asks, (shadow.DROPPED, "mean"))
