"""`reference.json`, a signed file of a variant: what its answers looked like on inputs like those
that it is made for, so that a device can tell when its own look otherwise.

A reference is finite: 10 % of it lie below its 10 % quantile, and perhaps 12 % of all inputs. So
each share is held to an upper bound of the reference's own, and to some slack beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadName, ProtocolError
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.shares import upper_bound

REFERENCE = "reference.json"
SCHEMA = "pilotwave/reference/1"
LOW_CONFIDENCE = "low_confidence"
"""The metric of 0 and 1: whether an input's confidence lay below the reference's quantile."""
TOP_CLASS = "top_class"
"""The metric of each answer's class."""
DRIFTED = "drifted"
"""The kind of the event of a device whose inputs are no longer like the reference's: `reason` names
the metric."""
MAX_REFERENCE_BYTES = 64 << 10
MIN_INPUTS = 100
MAX_INPUTS = 10_000_000
MAX_CLASSES = 4096
MAX_NUMBERS = 4
SLACK = 1.25
_CONFIDENCE = 0.99
_MOST = 1e12
_HIGHEST = 0.9  # a bound beyond it leaves nothing to notice
_OUTSIDE = "_outside"


class BadReference(ProtocolError):
    """Not a reference as devices read it."""

    code = "bad_reference"


@dataclass(frozen=True)
class Confidence:
    """`low` of the reference's inputs had a confidence below `below`. It is the top probability of
    `output` (of `logits`: after a softmax), or with no output the application's own score."""

    below: float
    low: int
    output: str | None = None
    logits: bool = False


@dataclass(frozen=True)
class Edges:
    """`outside` of the reference's numbers lay below `low` or above `high`."""

    low: float
    high: float
    outside: int


@dataclass(frozen=True)
class Reference:
    """What `inputs` inputs showed: confidence, how many answers were of each class, and the edges
    of numbers that the application observes."""

    inputs: int
    confidence: Confidence | None = None
    classes: tuple[int, ...] = ()
    numbers: Mapping[str, Edges] = field(default_factory=dict)

    def share(self, metric: str) -> float | None:
        """Return the reference's own share of a metric of 0 and 1; None where it has none."""
        if metric == LOW_CONFIDENCE and self.confidence is not None:
            return self.confidence.low / self.inputs
        edges = self.numbers.get(metric.removesuffix(_OUTSIDE))
        return None if edges is None or metric == number_of(metric) else edges.outside / self.inputs

    def bound(self, metric: str) -> float | None:
        """Return the share that a metric may reach before it counts as drift."""
        share = self.share(metric)
        if share is None:
            return None
        count = round(share * self.inputs)
        return min(SLACK * upper_bound(count, self.inputs, _CONFIDENCE), _HIGHEST)

    @property
    def bounds(self) -> dict[str, float]:
        """All that `bound` knows, by metric."""
        metrics = [LOW_CONFIDENCE, *map(outside_of, self.numbers)]
        return {m: bound for m in metrics if (bound := self.bound(m)) is not None}

    def to_bytes(self) -> bytes:
        """Write it: equal references give equal bytes."""
        found = {**asdict(self), "schema": SCHEMA, "classes": list(self.classes)}
        return strictjson.dumps(found) + b"\n"


def top_probabilities(rows: Any, *, logits: bool) -> Any:
    """Return the largest probability of each row of an array; of `logits`, after a softmax."""
    import numpy as np

    found = np.asarray(rows, np.float64)
    top = found.max(axis=1)
    return 1 / np.exp(found - top[:, None]).sum(axis=1) if logits else top


def outside_of(number: str) -> str:
    """Name the metric of 0 and 1: whether a number lay outside the reference's edges."""
    return number + _OUTSIDE


def number_of(metric: str) -> str:
    """Name the number whose metric `outside_of` named; any other metric is its own."""
    return metric.removesuffix(_OUTSIDE)


def parse_reference(raw: bytes) -> Reference:
    """Read a reference, or raise `BadReference`."""
    try:
        data = strictjson.loads(raw, max_bytes=MAX_REFERENCE_BYTES, max_depth=4)
    except BadJson as e:
        raise BadReference(str(e)) from e
    f = Fields(data, "", BadReference)
    if f.raw("schema") != SCHEMA:
        raise f.fail("schema", SCHEMA, f.raw("schema"))
    inputs = f.integer("inputs", low=MIN_INPUTS, high=MAX_INPUTS)
    found = Reference(
        inputs=inputs,
        confidence=_confidence(f.opt_inner("confidence"), inputs),
        classes=_classes(f, inputs),
        numbers=_numbers(f, inputs),
    )
    f.done()
    return found


def _confidence(f: Fields | None, inputs: int) -> Confidence | None:
    if f is None:
        return None
    found = Confidence(
        below=f.number("below", low=-_MOST, high=_MOST),
        low=f.integer("low", high=inputs),
        output=f.opt_text("output", limit=256),
        logits=f.boolean("logits"),
    )
    f.done()
    return found


def _classes(f: Fields, inputs: int) -> tuple[int, ...]:
    counts = f.items("classes", limit=MAX_CLASSES)
    if not all(type(n) is int and 0 <= n <= inputs for n in counts) or sum(counts) > inputs:
        raise f.fail("classes", f"how many of the {inputs} inputs were of each class", counts)
    return tuple(counts)


def _numbers(f: Fields, inputs: int) -> dict[str, Edges]:
    found: dict[str, Edges] = {}
    whole: dict[str, Any] = f.mapping("numbers", limit=MAX_NUMBERS)
    for name in whole:
        try:
            names.check_metric(outside_of(name))
        except BadName as e:
            raise f.fail("numbers", "names of metrics", name) from e
        edges = Fields(whole[name], f.at(f"numbers.{name}"), BadReference)
        low = edges.number("low", low=-_MOST, high=_MOST)
        high = edges.number("high", low=low, high=_MOST)
        found[name] = Edges(low, high, edges.integer("outside", high=inputs))
        edges.done()
    return found
