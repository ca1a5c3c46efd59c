"""Count which inputs are unlike those of a version's reference, as 0 and 1 for the agent to judge.

It costs a call some microseconds where the version has a reference, and a look into a table where
it has none. What goes wrong here never fails a call.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.links import read_reference
from pilotwave_agent.live.recorder import Recorder
from pilotwave_protocol.reference import (
    LOW_CONFIDENCE,
    TOP_CLASS,
    Reference,
    outside_of,
    top_probabilities,
)

SCORE, CONFIDENCE = "score", "confidence"
_MOST_KNOWN = 8


class InputChecks:
    """The references of the versions of one model, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, Reference | None] = {}

    def answered(self, recorder: Recorder, version: Version, outputs: Mapping[str, Any]) -> bool:
        """Count the classes of an answer, and whether it was unsure; say whether it was."""
        reference = self._of(version)
        known = reference.confidence if reference else None
        if known is None or known.output is None:
            return False
        low = rows = 0
        with contextlib.suppress(Exception):  # a tensor of another kind than the reference's
            scores = outputs[known.output]
            sure = top_probabilities(scores, logits=known.logits)
            rows = len(sure)
            low = rows - int((sure >= known.below).sum())  # NaN is not sure
            _count(recorder, version, LOW_CONFIDENCE, low, rows)
            for found, rows_of in Counter(scores.argmax(axis=1).tolist()).items():
                recorder.number(version, TOP_CLASS, float(found), rows_of)
        return low > 0

    def number(
        self, recorder: Recorder, version: Version, metric: str, value: float, *, said: str = SCORE
    ) -> bool:
        """Count a number that the application gave, if the reference knows it; say whether it is
        a confidence below the reference's. `said` is the metric that is the confidence where the
        reference's own is an output's."""
        reference = self._of(version)
        if reference is None:
            return False
        edges = reference.numbers.get(metric)
        with contextlib.suppress(ValueError):
            if edges is not None:
                outside = not edges.low <= value <= edges.high
                _count(recorder, version, outside_of(metric), int(outside), 1)
            known = reference.confidence
            if known is not None and metric == (SCORE if known.output is None else said):
                low = value < known.below
                _count(recorder, version, LOW_CONFIDENCE, int(low), 1)
                return low
        return False

    def _of(self, version: Version) -> Reference | None:
        if not version.name:
            return None  # not what is in use here
        try:
            return self._known[version.name]
        except KeyError:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[version.name] = read_reference(version.path)
            return found


def _count(recorder: Recorder, version: Version, metric: str, yes: int, rows: int) -> None:
    for value, count in ((1.0, yes), (0.0, rows - yes)):
        if count:
            recorder.number(version, metric, value, count)
