"""Keep windows of live metrics as the gates of a running rollout will look at them.

Which windows are a rollout's, and of which arm, is the caller's to say (`route_metrics.py`). A
sample is one figure of one window of one device. Of a device on the new version the first
`_FIRST` windows are kept and then ever fewer. What is merged for people gets the same windows, each
with at most `MOST_VALUES` values, so that no device's calls drown the others'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from pilotwave_protocol.fields import MAX_INT
from pilotwave_protocol.sketch import Sketch
from pilotwave_server.db import insert_missing, upsert
from pilotwave_server.devices.facts import told_by
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.rollouts.gates.data import series
from pilotwave_server.rollouts.tables import RolloutSampleRow, RolloutSketchRow
from pilotwave_server.telemetry.live import NewWindow

NEW, OLD = "new", "old"
_FIRST = 12
_MERGED_BINS = 1024
MOST_VALUES = 10_000


class Wanted(NamedTuple):
    """A window that a rollout's gates ask for, with the labels and facts they are asked by. `at` is
    when it ended, in seconds since 1970, never later than it came."""

    rollout: int
    new: bool
    window: NewWindow
    statistics: tuple[str, ...]
    slice_keys: tuple[str, ...] = ()
    at: float = 0.0

    @property
    def arm(self) -> str:
        return NEW if self.new else OLD


def figure(sketch: Sketch, statistic: str) -> float:
    """Return what `mean`, `p95` or `p99.9` is of the sketch."""
    if statistic == "mean":
        return sketch.mean
    return sketch.quantile(float(statistic.removeprefix("p")) / 100)


def is_kept(number: int) -> bool:
    """Say whether the `number`-th window of a new version on a device is looked at.

    The first is warm-up: it holds the load of the version and the first calls on cold caches. From
    `_FIRST` on, every doubling tells whether it got worse with time.
    """
    return 2 <= number <= _FIRST or (number > _FIRST and number & (number - 1) == 0)


def take_samples(session: Session, wanted: Iterable[Wanted], *, now: datetime) -> None:
    """Store them; none costs no statement, any number a fixed number of them."""
    wanted = list(wanted)
    if not wanted:
        return
    slices = _slices(session, wanted)
    rows = [
        {
            "rollout_id": w.rollout,
            "device_id": w.window.device_id,
            "metric": series(w.window.metric, statistic),
            "arm": w.arm,
            "value": figure(w.window.sketch, statistic),
            "reference": _reference(w, statistic),
            "count": min(w.window.sketch.count, MAX_INT),
            "slices": slices.get((w.rollout, w.window.device_id), {}),
            "at": now,
            "ended_at": min(datetime.fromtimestamp(w.at, timezone.utc), now),
            "seconds": max(0.0, (w.window.end - w.window.start).total_seconds()),
        }
        for w in wanted
        for statistic in w.statistics
    ]
    if rows:
        session.execute(insert(RolloutSampleRow), rows)
    _merge(session, wanted)


def _reference(w: Wanted, statistic: str) -> float | None:
    """The device's figure on what it had before, or so far on what it has still."""
    past = w.window.past if w.new else w.window.before
    return None if past is None else figure(past, statistic)


def _slices(session: Session, wanted: Sequence[Wanted]) -> Mapping[tuple[int, int], dict[str, str]]:
    asked = [w for w in wanted if w.slice_keys]
    if not asked:
        return {}
    d = DeviceRow
    query = select(d.id, d.labels, d.facts).where(d.id.in_({w.window.device_id for w in asked}))
    known = {id: told_by(labels, facts) for id, labels, facts in session.execute(query)}
    return {
        (w.rollout, w.window.device_id): {
            key: str(known[w.window.device_id][key])
            for key in w.slice_keys
            if key in known.get(w.window.device_id, {})
        }
        for w in asked
    }


def _merge(session: Session, wanted: Sequence[Wanted]) -> None:
    """Merge whole arms, for people. The rows are locked in order, so that no two writers wait for
    each other in a ring, and none overwrites what the other has merged."""
    arms: dict[tuple[int, str, str], Sketch] = defaultdict(Sketch)
    for w in wanted:
        arms[w.rollout, w.arm, w.window.metric].merge(w.window.sketch.scaled(MOST_VALUES))
    s = RolloutSketchRow
    keys = ("rollout_id", "arm", "metric")
    empty = [{**dict(zip(keys, arm, strict=True)), "sketch": {}} for arm in sorted(arms)]
    insert_missing(session, RolloutSketchRow, empty)
    rollouts = {rollout for rollout, _, _ in arms}
    locked = select(s.rollout_id, s.arm, s.metric, s.sketch).where(s.rollout_id.in_(rollouts))
    for *arm, plain in session.execute(locked.order_by(*keys).with_for_update()):
        if plain and tuple(arm) in arms:
            arms[arm[0], arm[1], arm[2]].merge(Sketch.from_plain(plain, bins=_MERGED_BINS))
    rows: list[dict[str, Any]] = [
        {**dict(zip(keys, arm, strict=True)), "sketch": sketch.to_plain(_MERGED_BINS)}
        for arm, sketch in sorted(arms.items())
    ]
    upsert(session, RolloutSketchRow, rows)
