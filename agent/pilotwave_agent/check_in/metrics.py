"""Collect what applications measured, and keep it until the server has it.

Each check-in carries windows that rise in number by one. They lie in one small file, written before
the applications' own are removed: a power cut in between is noticed by their names, so nothing is
counted twice. While the server is away little is collected: applications add to the windows that
nobody takes, so the space stays bounded and no number is lost.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.shadow_metrics import version_in_shadow, why_refused
from pilotwave_agent.check_in.drift import DriftWatch
from pilotwave_agent.check_in.numbering import may_jump, new_name
from pilotwave_agent.core.records import moment_of
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_protocol import names
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.fields import ROOM, format_time, parse_time
from pilotwave_protocol.messages.check_in import MAX_METRICS, MetricReport
from pilotwave_protocol.sketch import Sketch

MAX_KEPT = 64
"""So many windows are kept for the server; beyond it the oldest go, and are counted."""
_CROWD = 64  # so many files of ended applications are too many to leave where they are
_SCHEMA = "pilotwave/window/1"


@dataclass
class _Spool:
    """What the file says: the last number given and the random name under which numbers are given,
    windows, when each metric's last one ended, the files that are counted already, how many windows
    were dropped."""

    last: int = 0
    reports: list[MetricReport] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    dropped: int = 0
    numbering: str = ""


@dataclass
class _Found:
    """What the applications measured of one metric of one version."""

    begun: float
    ended: float
    sketch: Sketch


class Telemetry:
    """The windows of one device."""

    def __init__(
        self,
        disk: Disk,
        live: Path,
        path: Path,
        users: heartbeats.Users | None = None,
        drift: DriftWatch | None = None,
    ) -> None:
        """`users` may speak for their models; `drift` judges what is collected."""
        self._disk, self._live, self._path, self._users = disk, live, path, users or {}
        self._drift = drift
        self._spool = _read(disk, path)

    @property
    def numbering(self) -> str:
        """The name under which windows are numbered; empty: there was none yet."""
        return self._spool.numbering

    @property
    def dropped(self) -> int:
        """How many windows no server will see."""
        return self._spool.dropped

    def pending(self) -> tuple[MetricReport, ...]:
        """Return the windows for the next check-in, oldest first."""
        return tuple(self._spool.reports[:MAX_METRICS])

    def collect(self, wall: float) -> None:
        """Take what applications left, if there is room for it. A disk that says no is asked
        another time."""
        models = heartbeats.models(self._live)
        for model in models:
            with contextlib.suppress(OSError):
                heartbeats.tidy(self._live, model)
        waiting = [path for m in models for path in heartbeats.names(self._live / m, ".window")]
        if len(self._spool.reports) >= MAX_METRICS and len(waiting) < _CROWD:
            return
        for path in waiting:
            # who renames it has it: the application may be about to add to it
            with contextlib.suppress(OSError):
                self._disk.rename(path, path.with_suffix(".taken"))
        files = [(m, path) for m in models for path in heartbeats.names(self._live / m, ".taken")]
        try:
            if files:
                self._take(files, wall)
        except OSError:
            self._spool = _read(self._disk, self._path)  # what is not on disk has not come about

    def acked(self, number: int) -> bool:
        """Forget the windows that the server has; say whether others wait.

        A number that was never given is an older server's, which knows of no numberings: the file
        was lost once, and under its old numbers these windows would be taken for ones it has.
        """
        spool = self._spool
        if number > spool.last:
            if not may_jump(spool.last, number):
                return False
            again = enumerate(spool.reports, start=number + 1)
            spool.reports = [MetricReport(**{**vars(r), "id": n}) for n, r in again]
            spool.last = number + len(spool.reports)
            self._write()
        elif any(r.id <= number for r in spool.reports):
            spool.reports = [r for r in spool.reports if r.id > number]
            self._write()
            return bool(spool.reports)
        return False

    # --- taking

    def _take(self, files: list[tuple[str, Path]], wall: float) -> None:
        found: dict[tuple[str, str, str], _Found] = {}
        for model, path in files:
            if path.name not in self._spool.taken:
                tried = version_in_shadow(self._live, model)
                for key, window in _measured(model, path, self._users.get(model), tried):
                    known = found.setdefault(key, _Found(window.begun, window.ended, Sketch()))
                    known.begun = min(known.begun, window.begun)
                    known.ended = max(known.ended, window.ended)
                    known.sketch.merge(window.sketch)
        for (model, version, metric), window in sorted(found.items(), key=lambda i: i[1].begun):
            self._add(model, version, metric, window, wall)
        self._spool.taken = [path.name for _, path in files]
        self._write()
        if self._drift:
            self._drift.take([(*key, window.sketch) for key, window in found.items()], wall)
        for _, path in files:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove what was taken. It may be anything that an application named so."""
        try:
            self._disk.unlink(path)
        except (IsADirectoryError, PermissionError):
            with SharedFolder(path.parent) as folder:
                folder.remove(path.name)

    def _add(self, model: str, version: str, metric: str, window: _Found, wall: float) -> None:
        spool, of = self._spool, f"{model}/{metric}"
        before = spool.ends.get(of, 0.0)
        end = min(window.ended, wall)
        if before > wall:  # the clock was set back
            before = 0.0
        start = min(max(window.begun, before), max(end, before))
        end = max(start, end)
        spool.ends[of] = end
        spool.last += 1
        first, last = (moment_of(t) for t in (start, end))
        spool.reports.append(
            MetricReport(spool.last, model, version, metric, first, last, window.sketch)
        )
        if len(spool.reports) > MAX_KEPT:
            del spool.reports[0]
            spool.dropped += 1

    def _write(self) -> None:
        spool = self._spool
        spool.numbering = spool.numbering or new_name()
        plain = {
            **vars(spool),
            "reports": [
                {
                    **vars(r),
                    "start": format_time(r.start),
                    "end": format_time(r.end),
                    "sketch": r.sketch.to_plain(),
                }
                for r in spool.reports
            ],
        }
        self._disk.make_dirs(self._path.parent)
        self._disk.write_atomic(self._path, json.dumps(plain).encode() + b"\n")


def _measured(
    model: str, path: Path, users: Collection[int] | None, tried: str | None
) -> Iterator[tuple[tuple[str, str, str], _Found]]:
    """Yield what one file holds; what makes no sense in it is passed over, and so is what is said
    of a version in shadow that is not the one that is `tried`."""
    plain = heartbeats.load(path, users)
    if not isinstance(plain, dict) or plain.get("schema") != _SCHEMA:
        return
    try:
        names.check_model(model)
        version = names.check_version(plain.get("version"))
        begun, ended = float(plain["begun"]), float(plain["ended"])
        sketches = dict(plain["sketches"])
        datetime.fromtimestamp(begun, timezone.utc), datetime.fromtimestamp(ended, timezone.utc)
    except (ProtocolError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return
    for metric, sketch in list(sketches.items())[:MAX_METRICS]:
        with contextlib.suppress(ProtocolError):
            read = Sketch.from_plain(sketch)
            if why_refused(names.check_metric(metric), version, tried) is None:
                yield (model, version, metric), _Found(begun, ended, read)


def _read(disk: Disk, path: Path) -> _Spool:
    """Read the file; one that is lost, damaged or out of room is begun anew, under a new name."""
    try:
        plain: dict[str, Any] = json.loads(disk.read(path))
        reports = [
            MetricReport(
                **{
                    **r,
                    "start": parse_time(r["start"]),
                    "end": parse_time(r["end"]),
                    "sketch": Sketch.from_plain(r["sketch"]),
                }
            )
            for r in plain.pop("reports")
        ]
        return _with_room(_Spool(**plain, reports=reports))
    except (OSError, ProtocolError, ValueError, TypeError, KeyError, AttributeError):
        return _Spool()


def _with_room(spool: _Spool) -> _Spool:
    if spool.last < ROOM:
        return spool
    reports = [replace(r, id=n) for n, r in enumerate(spool.reports, start=1)]
    return replace(spool, last=len(reports), reports=reports, numbering=new_name())
