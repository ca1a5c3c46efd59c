"""The part of a policy that says by which measurement devices get their variant of a version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pilotwave_protocol.errors import BadName
from pilotwave_protocol.figures import NUMBERS
from pilotwave_protocol.names import check_metric
from pilotwave_server.rollouts.policies import kinds
from pilotwave_server.rollouts.policies.faults import Told, Wrong, refused, show
from pilotwave_server.rollouts.policies.read_part import PolicyPart

LATENCY, ENERGY, MEMORY, BYTES = "latency", "energy", "memory", "bytes"
MOST_BOUNDS = 8
_BOUND = re.compile(r"(>=|<=) ?([0-9]{1,12}(?:\.[0-9]{1,9})?)", re.ASCII)


def _bounds(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise Wrong(f"expected a mapping of `figure: bound`; got {show(value)}")
    if len(value) > MOST_BOUNDS:
        raise Wrong(f"expected at most {MOST_BOUNDS} bounds; got {len(value)}")
    told: list[Told] = []
    for key, bound in value.items():
        try:
            check_metric(key)
        except BadName as error:
            told.append(((str(key)[:60],), str(error)))
            continue
        if not isinstance(bound, str) or not _BOUND.fullmatch(bound):
            told.append(((key,), f'expected a bound as ">=0.955" or "<=64"; got {show(bound)}'))
    if told:
        raise refused(told)
    return dict(value)


@dataclass(frozen=True)
class Bound:
    """`figure` is at least or at most `limit`. `measured`: devices measure it; else the publisher
    signed it for each variant, as `<variant>.top1` of the version's metrics."""

    figure: str
    at_least: bool
    limit: float

    @property
    def measured(self) -> bool:
        return self.figure in NUMBERS

    def holds(self, number: float) -> bool:
        return number >= self.limit if self.at_least else number <= self.limit

    def __str__(self) -> str:
        return f"{self.figure} {'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Choose(PolicyPart):
    """Of the variants that fit a device and keep the bounds of `subject`, the one of which devices
    of its class measure the least latency, energy, memory, or that has the fewest bytes. Another
    takes its place only where it is better by `keep`."""

    minimise: Annotated[str, kinds.word(LATENCY, ENERGY, MEMORY, BYTES)]
    subject: Annotated[Mapping[str, str], kinds.Kind("a mapping of `figure: bound`", _bounds)] = (
        field(default_factory=dict)
    )
    keep: Annotated[float, kinds.share(0, 0.9)] = 0.1

    @property
    def bounds(self) -> Iterator[Bound]:
        """Yield what `subject` says."""
        for figure, text in self.subject.items():
            found = _BOUND.fullmatch(text)
            if found is not None:
                yield Bound(figure, found[1] == ">=", float(found[2]))
