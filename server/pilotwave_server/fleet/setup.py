"""Put the fleet's memory into a running server, and keep it as new as the database."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.devices.presence import LastPolls
from pilotwave_server.devices.silence import FLUSH_S, note_interval_s
from pilotwave_server.fleet.last_seen import LastSeen
from pilotwave_server.fleet.leases import INTERVAL_S, FleetLeases
from pilotwave_server.fleet.loader import Loader
from pilotwave_server.fleet.preload import Preload
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.rollouts.assignments.snapshot import NewestSnapshot
from pilotwave_server.workers import Periodic

WATCH_S = 0.5


def install(context: Context) -> None:
    """Follow the database from the server's start to its end."""
    db = context.db
    fleet = FleetState(db, context.get(TrustStore))
    seen = LastSeen(db, fleet, note_s=note_interval_s(context.settings))
    desk = FleetLeases(db, fleet, context.clock)
    for part in (fleet, Loader(fleet.load), seen, desk, fleet.remembered):
        context.put(part)
    context.put(NewestSnapshot(lambda: fleet.snapshot))
    context.put(LastPolls(fleet.last_seen))
    # what is changed here shows at the very next poll; what others change, at the next look
    db.on_revision.append(fleet.refresh)
    context.workers += [
        Watcher(fleet),
        Preload(db, fleet),
        Periodic("leases", desk.work, interval_s=INTERVAL_S),
        Periodic("last-seen", seen.flush, interval_s=FLUSH_S, at_stop=True, can_wait=True),
    ]


class Watcher:
    """Looks for changes that other processes made. Its first look is over when it has started."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._again = Periodic("fleet", fleet.refresh, interval_s=WATCH_S)

    def start(self) -> None:
        self._fleet.refresh()
        self._again.start()

    def stop(self) -> None:
        self._again.stop()
