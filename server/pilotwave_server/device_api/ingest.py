"""Take a batch of verified check-ins into the database: steps 7 to 13 of a check-in, as numbered in
docs/protocol.md. What each step means is its slice's to say; here is only their order, and what
they hold while they wait for each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from pilotwave_server.clock import Clock
from pilotwave_server.db import Database, lock_fleet
from pilotwave_server.device_api import route_figures, route_outcomes
from pilotwave_server.device_api.direct_bytes import count_direct
from pilotwave_server.device_api.route_figures import TrialNews
from pilotwave_server.device_api.route_metrics import MetricRouter
from pilotwave_server.devices import conflicts
from pilotwave_server.downloads.counting import Counting
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.reports import store as report_store
from pilotwave_server.rollouts.reports.samples import take_samples
from pilotwave_server.rollouts.reports.store import Heard
from pilotwave_server.telemetry.freshness import Challenges
from pilotwave_server.telemetry.store import Stored, VerifiedCheckIn, store_check_ins

log = logging.getLogger(__name__)


class Ingest:
    """Called by the one thread that writes check-ins (`writer.Store`).

    `check_in_s` is the interval that devices are told; `wake` has the rollouts looked after.
    """

    def __init__(
        self,
        db: Database,
        fleet: FleetState,
        clock: Clock,
        *,
        challenges: Challenges,
        counting: Counting,
        check_in_s: int,
        wake: Callable[[], object],
    ) -> None:
        self._db = db
        self._fleet = fleet
        self._clock = clock
        self._challenges = challenges
        self._counting = counting
        self._check_in_s = check_in_s
        self._wake = wake
        self._metrics = MetricRouter(fleet)

    def __call__(self, items: Sequence[VerifiedCheckIn]) -> list[Stored]:
        """Return what became of each. When it returns, what is acknowledged is committed."""
        now = self._clock()
        news = route_outcomes.heard(self._fleet, items)  # 7: no lock is held yet
        trials = route_figures.heard(self._fleet, items, now)
        with self._db.write() as session:
            stored, matters = self._store(session, items, news, trials, now)
        for item, one in zip(items, stored, strict=True):
            if one.conflict:
                self._look_at_conflict(item.check_in.device, now)  # 12
        count_direct(self._fleet, self._counting, items, stored)
        if matters:
            self._wake()  # 13: after the commit, so that the engine finds it
        return stored

    def _store(
        self,
        session: Session,
        items: Sequence[VerifiedCheckIn],
        news: Sequence[Heard],
        trials: TrialNews,
        now: datetime,
    ) -> tuple[list[Stored], bool]:
        """Steps 8 to 11, in one transaction; and whether a rollout has to be looked at."""
        # 8: the fleet's row before any device's, as everybody takes them: no deadlock
        is_news = report_store.is_news(session, news, now=now)
        if trials or is_news:
            lock_fleet(session)
        stored = store_check_ins(  # 9
            session,
            items,
            matters=self._fleet.matters,
            challenges=self._challenges,
            check_in_s=self._check_in_s,
            now=now,
        )
        # 10: what a stale report says of rollouts is not believed either
        pairs = zip(items, stored, strict=True)
        taken = {item.device_id for item, one in pairs if one.refusal is None}
        told = [h for h in news if h.device_id in taken] if is_news else []
        moved = report_store.take(session, told, now=now)
        windows = self._metrics.wanted(items, stored, moment=now.timestamp())
        take_samples(session, windows, now=now)  # 11
        route_figures.store(session, trials, taken, now=now)
        return stored, bool(moved or windows)

    def _look_at_conflict(self, device: str, now: datetime) -> None:
        """In a transaction of its own: it holds the fleet's row before the device's."""
        try:
            with self._db.write() as session:
                conflicts.look(session, name=device, now=now)
        except Exception:  # the report is stored; the next one says the same
            log.exception("a device's conflict could not be noted")
