"""Let devices into paced rollouts: those that polled, could take the version and have no lease yet.

A poll only leaves the device's name here. A thread of its own asks the database, a batch at a time,
and only when a paced rollout runs. The device finds the offer at its next poll.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from sqlalchemy.orm import Session

from pilotwave_server.clock import Clock
from pilotwave_server.db import Database
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.groups.service import count_devices
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.rollouts.assignments.snapshot import RunningRollout
from pilotwave_server.rollouts.leases import grant, had_their_turn, read_serving, room

INTERVAL_S = 0.5
ASK_AGAIN_S = 10.0
MAX_ASKING = 20_000  # the latest; whoever falls out asks again at its next poll
CHUNK = 500
GROUP_SIZE_S = 60.0


class FleetLeases:
    """`ask` is called on the event loop, `work` on one thread."""

    def __init__(self, db: Database, fleet: FleetState, clock: Clock) -> None:
        self._db = db
        self._fleet = fleet
        self._clock = clock
        self._asking: deque[DeviceRecord] = deque(maxlen=MAX_ASKING)
        self._sizes: dict[int, tuple[float, int]] = {}

    def ask(self, record: DeviceRecord, moment: float) -> None:
        """Note that the device wants leases (`record.wants`)."""
        record.asks_after = moment + ASK_AGAIN_S
        self._asking.append(record)

    def work(self) -> None:
        """Give leases to those that asked since the last time, as far as there is room."""
        asking: dict[int, list[DeviceRecord]] = defaultdict(list)
        for _ in range(len(self._asking)):
            record = self._asking.popleft()
            for rollout in record.wants:
                asking[rollout].append(record)
        if not asking:
            return
        running = {r.row_id: r for found in self._fleet.snapshot.rollouts.values() for r in found}
        now = self._clock()
        for row_id, records in sorted(asking.items()):
            if row_id in running:
                self._serve(running[row_id], records, now)

    def _serve(self, rollout: RunningRollout, records: list[DeviceRecord], now: datetime) -> None:
        size = self._group_size(rollout, now) if rollout.pace.min_available else 0
        shadow = rollout.shadow is not None and rollout.shadow.lets_in
        with self._db.read() as session:
            left = room(session, rollout.row_id, rollout.pace, group_size=size, now=now)
            found = self._fitting(session, rollout, records, shadow=shadow)
            fitting = dict(islice(found, min(left, CHUNK)))
        if fitting:
            with self._db.write() as session:
                grant(
                    session,
                    rollout_id=rollout.row_id,
                    pace=rollout.pace,
                    device_ids=list(fitting),
                    group_size=size,
                    now=now,
                    serving={id: v for id, v in fitting.items() if v} if shadow else None,
                )

    def _fitting(
        self,
        session: Session,
        rollout: RunningRollout,
        records: list[DeviceRecord],
        *,
        shadow: bool,
    ) -> Iterator[tuple[int, str | None]]:
        """The devices that a lease would help; those of a shadow with the version that they run.
        Taken only as far as there is room: it costs."""
        for begin in range(0, len(records), CHUNK):
            chunk = records[begin : begin + CHUNK]
            ids = [record.id for record in chunk]
            settled = had_their_turn(session, rollout.row_id, ids, in_shadow=shadow)
            serving = read_serving(session, ids, rollout.model) if shadow else {}
            for record in chunk:
                runs = serving.get(record.id)
                if record.id in settled or (shadow and runs is None):
                    continue
                if self._fleet.would_take(record, rollout, runs):
                    yield record.id, runs

    def _group_size(self, rollout: RunningRollout, now: datetime) -> int:
        """The group's enrolled devices; counting takes time, so it is done once a minute."""
        moment = now.timestamp()
        counted, size = self._sizes.get(rollout.group_id, (0.0, 0))
        if abs(moment - counted) > GROUP_SIZE_S:
            with self._db.read() as session:
                group = session.get(GroupRow, rollout.group_id)
                size = 0 if group is None else count_devices(session, group)
            self._sizes[rollout.group_id] = moment, size
        return size
