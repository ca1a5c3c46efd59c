"""Judge what applications counted by the reference of the version in use; raise an alarm on drift.

The agent does so as it collects windows, so that several processes of an application, and those
in other languages, count together, and none loses its count at a restart. The file is written
after the windows were taken: a power cut in between costs the evidence of a window, and never
counts one twice.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pilotwave_agent.core.drift import Evidence
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.live.links import CURRENT, ModelLinks, read_reference
from pilotwave_protocol.reference import LOW_CONFIDENCE, Reference, number_of
from pilotwave_protocol.sketch import Sketch

QUIET_S = 86_400.0
"""A drift that lasts is told once a day."""
_MOST = 64


@dataclass(frozen=True)
class Alarm:
    """Inputs of a version have drifted: by which metric, and what is to be said of it."""

    model: str
    version: str
    metric: str
    sentence: str


@dataclass(frozen=True)
class _Watched:
    """The evidence about a metric of a model. `name` is the folder of the version in use, `told`
    when the last alarm was (epoch seconds)."""

    model: str
    metric: str
    name: str
    told: float = 0.0
    evidence: Evidence = field(default_factory=Evidence)


class _OfUse(NamedTuple):
    """The folder of a version in use, and its reference."""

    name: str
    reference: Reference


class DriftWatch:
    """The evidence of one device, and the alarms that the journal does not have yet."""

    def __init__(self, disk: Disk, data: Path, path: Path) -> None:
        self._disk, self._data, self._path = disk, data, path
        self._watched: dict[tuple[str, str], _Watched] = {}
        self.alarms: tuple[Alarm, ...] = ()
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            self._read()

    def take(self, windows: Iterable[tuple[str, str, str, Sketch]], wall: float) -> None:
        """Judge windows: model, version, metric, numbers. May raise `OSError`."""
        of_use: dict[tuple[str, str], _OfUse | None] = {}
        judged = False
        for model, version, metric, sketch in windows:
            if (model, version) not in of_use:
                of_use[model, version] = self._of_use(model, version)
            found = of_use[model, version]
            bound = found.reference.bound(metric) if found else None
            if found is not None and bound is not None:
                self._judge(model, version, metric, sketch, found, bound, wall)
                judged = True
        if judged:
            self._write()

    def told(self, alarms: Iterable[Alarm]) -> None:
        """Forget alarms that the journal has. May raise `OSError`."""
        gone = set(alarms)
        if gone & set(self.alarms):
            self.alarms = tuple(a for a in self.alarms if a not in gone)
            self._write()

    def drifting(self, wall: float) -> dict[str, str]:
        """Name the version folder of each model whose inputs drifted within the last day."""
        found = [w for w in self._watched.values() if w.told <= wall < w.told + QUIET_S]
        return {w.model: w.name for w in found if self._in_use(w)}

    def _of_use(self, model: str, version: str) -> _OfUse | None:
        files = ModelLinks(self._data, model).files_of(version)
        reference = read_reference(files) if files else None
        return _OfUse(files.name, reference) if files and reference else None

    def _judge(
        self,
        model: str,
        version: str,
        metric: str,
        sketch: Sketch,
        of: _OfUse,
        bound: float,
        wall: float,
    ) -> None:
        known = self._watched.get((model, metric))
        if known is None or known.name != of.name:
            known = _Watched(model, metric, of.name)
        counted = min(max(round(sketch.sum), 0), sketch.count)  # 0 and 1, if all is as it should be
        evidence = known.evidence.after(counted, sketch.count, bound)
        known = replace(known, evidence=evidence)
        if evidence.is_drift:
            if not known.told <= wall < known.told + QUIET_S:
                sentence = sentence_of(of.reference, metric, evidence, bound)
                alarm = Alarm(model, version, metric, sentence)
                self.alarms = (*self.alarms, alarm)[-_MOST:]
                known = replace(known, told=wall)
            known = replace(known, evidence=Evidence())
        self._watched[model, metric] = known

    def _read(self) -> None:
        plain = json.loads(self._disk.read(self._path))
        watched = [
            _Watched(**{**w, "evidence": _evidence(w["evidence"])}) for w in plain["watched"]
        ]
        self.alarms = tuple(Alarm(**a) for a in plain["alarms"])
        self._watched = {(w.model, w.metric): w for w in watched}

    def _write(self) -> None:
        watched = [w for w in self._watched.values() if self._in_use(w)][-_MOST:]
        plain = {
            "watched": [asdict(w) for w in watched],
            "alarms": [asdict(a) for a in self.alarms],
        }
        self._disk.make_dirs(self._path.parent)
        self._disk.write_atomic(self._path, json.dumps(plain).encode() + b"\n")

    def _in_use(self, watched: _Watched) -> bool:
        return ModelLinks(self._data, watched.model).named_by(CURRENT) == watched.name


def sentence_of(reference: Reference, metric: str, evidence: Evidence, bound: float) -> str:
    """Say what drifted, with its numbers."""
    edges = reference.numbers.get(number_of(metric))
    if metric == LOW_CONFIDENCE and reference.confidence is not None:
        what = f"a confidence below {reference.confidence.below:.4g}"
    elif edges is not None:
        what = f"a {number_of(metric)} outside {edges.low:.4g} to {edges.high:.4g}"
    else:
        what = metric
    return (
        f"{evidence.counted} of the last {evidence.seen} inputs had {what}; of the reference's "
        f"{reference.inputs} inputs {reference.share(metric) or 0.0:.1%} had, and at most "
        f"{bound:.1%} may"
    )


def _evidence(plain: dict[str, object]) -> Evidence:
    found = Evidence(**plain)  # type: ignore[arg-type]  # a file of its own, read with care
    sums = tuple(float(known) for known in found.sums)
    if len(sums) != len(Evidence().sums):
        return Evidence()
    return replace(found, sums=sums)
