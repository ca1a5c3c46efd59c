"""Look after all rollouts, over and over: look, plan, act. Any number of engines may run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from pilotwave_server.clock import Clock
from pilotwave_server.db import Database
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.engine.actions import Action, Measure, OpenNext, PlannedStep
from pilotwave_server.rollouts.engine.execute import execute
from pilotwave_server.rollouts.engine.intervals import longest_s
from pilotwave_server.rollouts.engine.measure import reachable
from pilotwave_server.rollouts.engine.observe import active_rollouts, look
from pilotwave_server.rollouts.engine.picture import Moment, Picture
from pilotwave_server.rollouts.engine.plan import plan
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.rollouts.traces import note_wave
from pilotwave_server.rollouts.transitions import RolloutMoved, group_of
from pilotwave_server.rollouts.waves import opened_threshold
from pilotwave_server.tracing import Tracing
from pilotwave_server.workers import Periodic

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
REST = 10.0
STEPS_AT_ONCE = 8
JUMP_S = 30.0
COUNT_AGAIN_S = 1.0
COUNT_SHARE = 50.0


class HasSnapshot(Protocol):
    """Whoever keeps the fleet's picture (`fleet.state.FleetState`)."""

    @property
    def snapshot(self) -> FleetSnapshot: ...


class Engine:
    """One process's engine. `work` is called by one thread at a time.

    `fleet` gives the newest picture of the fleet that this process has. `steady` counts the seconds
    that pass, whatever the clock is set to. `listening` says since when devices would have been
    heard, by any process; by itself an engine knows it of its own only.
    """

    def __init__(
        self,
        db: Database,
        fleet: HasSnapshot,
        clock: Clock,
        *,
        check_in_s: int = 900,
        steady: Callable[[], float] = time.monotonic,
        listening: Callable[[datetime], datetime] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._db = db
        self._fleet = fleet
        self._clock = clock
        self._steady = steady
        self._check_in_s = check_in_s
        self._tracing = tracing or Tracing()
        self._counts = LastCounts()
        self._last: tuple[datetime, float] | None = None
        began = clock()
        self._listening = listening or (lambda now: began)
        self._jumped_at: datetime | None = None

    def work(self) -> None:
        """Take every step that is due now."""
        moment = self.moment()
        with self._db.read() as session:
            ids = active_rollouts(session)
        self._counts.forget_all_but(ids)
        for rollout in ids:
            try:
                self._look_after(rollout, moment)
            except Exception:
                # the others shall not wait for one that cannot be looked after
                log.exception("r%d was not looked after; it is tried again", rollout)

    def moment(self) -> Moment:
        """Return now. Where the clock has jumped, listening has begun anew."""
        now, passed = self._clock(), self._steady()
        if self._last is not None:
            before, then = self._last
            if abs((now - before).total_seconds() - (passed - then)) > JUMP_S:
                log.warning("the clock jumped from %s to %s", before, now)
                self._jumped_at = now
        self._last = now, passed
        since = self._listening(now)
        if self._jumped_at is not None:
            since = max(since, self._jumped_at)
        return Moment(now, since, self._check_in_s)

    def _look_after(self, rollout: int, moment: Moment) -> None:
        for _ in range(STEPS_AT_ONCE):
            actions = self.planned(rollout, moment)
            taken = [action for action in actions if self._act(action, moment)]
            if not any(isinstance(action, PlannedStep) for action in taken):
                return

    def planned(self, rollout: int, moment: Moment) -> list[Action]:
        """Return what is to be done; what a decision hangs on is counted if need be."""
        snapshot = self._fleet.snapshot
        with self._db.read() as session:
            picture = look(session, snapshot, rollout, moment)
        if picture is None:
            return []
        while True:
            actions = plan(picture, moment)
            wanted = next((a for a in actions if isinstance(a, Measure)), None)
            if wanted is None:
                return actions
            picture = _with(picture, wanted.what, self._measured(picture, snapshot, wanted.what))

    def _measured(self, picture: Picture, snapshot: FleetSnapshot, what: str) -> int:
        known = self._counts.fresh(picture, what)
        if known is not None:
            return known
        began = time.monotonic()
        with self._db.read() as session:
            count = self._read(session, picture, snapshot, what)
        self._counts.keep(picture, what, count, cost=time.monotonic() - began)
        return count

    def _read(self, session: Session, picture: Picture, snapshot: FleetSnapshot, what: str) -> int:
        if what == "check_in_s":
            return longest_s(session, picture.id, unknown_s=self._check_in_s)
        row = session.get_one(RolloutRow, picture.id)
        policy = stored_policy(row.document)
        return reachable(session, snapshot, row, policy, unsettled=what == "left")

    def _act(self, action: Action, moment: Moment) -> bool:
        if isinstance(action, OpenNext):
            action = replace(action, threshold=self._threshold(action))
        try:
            with self._db.write() as session:
                execute(session, action, self._fleet.snapshot, now=moment.now)
        except RolloutMoved:
            return False  # another engine, or an operator, was first
        if isinstance(action, OpenNext) and self._tracing.spans:
            with self._db.read() as session:
                note_wave(self._tracing, session, session.get_one(RolloutRow, action.rollout))
        return True

    def _threshold(self, step: OpenNext) -> int:
        with self._db.read() as session:
            row = session.get_one(RolloutRow, step.rollout)
            policy = stored_policy(row.document)
            return opened_threshold(session, group_of(session, row), row, policy, step.wave)


class EngineWorker(Periodic):
    """The engine as background work of a server process."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("rollouts", engine.work, interval_s=INTERVAL_S, rest=REST, can_wait=True)


class LastCounts:
    """Counts that read a whole group, kept so long that taking them costs a small share of it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, str], tuple[float, int]] = {}

    def fresh(self, picture: Picture, what: str) -> int | None:
        until, count = self._kept.get(_key(picture, what), (0.0, 0))
        return count if time.monotonic() < until else None

    def keep(self, picture: Picture, what: str, count: int, *, cost: float) -> None:
        until = time.monotonic() + max(COUNT_AGAIN_S, COUNT_SHARE * cost)
        self._kept[_key(picture, what)] = until, count

    def forget_all_but(self, rollouts: list[int]) -> None:
        known = set(rollouts)
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] in known}


def _with(picture: Picture, what: str, found: int) -> Picture:
    match what:
        case "size":
            return replace(picture, size=found)
        case "left":
            return replace(picture, left=found)
        case _:
            return replace(picture, check_in_s=found)


def _key(picture: Picture, what: str) -> tuple[int, int, str]:
    return picture.id, -1 if picture.open is None else picture.open.index, what
