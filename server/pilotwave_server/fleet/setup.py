"""Put the fleet's memory into a running server, and keep it as new as the database."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily

from pilotwave_server.context import Context
from pilotwave_server.db import Database, fleet_row
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
    watcher = Watcher(fleet)
    context.workers += [
        watcher,
        Preload(db, fleet),
        Periodic("leases", desk.work, interval_s=INTERVAL_S),
        Periodic("last-seen", seen.flush, interval_s=FLUSH_S, at_stop=True, can_wait=True),
    ]
    context.metrics.add_reading(lambda: read_lag(db, fleet))
    if not db.is_sqlite and context.settings.listening_url:
        listen(context, watcher)


def read_lag(db: Database, fleet: FleetState) -> list[GaugeMetricFamily]:
    """How far what this process holds in memory is behind the database."""
    with db.read() as session:
        revision = fleet_row(session).revision
    # a change since then is no lag
    lag = max(0, revision - fleet.snapshot.revision)
    return [
        GaugeMetricFamily("pilotwave_revision", "The fleet's revision counter.", value=revision),
        GaugeMetricFamily(
            "pilotwave_revision_lag",
            "Revisions that this process does not give devices yet.",
            value=lag,
        ),
    ]


def listen(context: Context, watcher: Watcher) -> None:
    """Look at once when another process has changed something."""
    # Imported here: without PostgreSQL its driver need not be there.
    from pilotwave_server.fleet.revision_listener import RevisionListener

    listener = RevisionListener(context.settings.listening_url, watcher.wake)
    context.workers.append(listener)

    def read() -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(
                "pilotwave_listening",
                "1 while this process is told of changes by PostgreSQL, 0 while it polls for them.",
                value=listener.listening,
            )
        ]

    context.metrics.add_reading(read)


class Watcher:
    """Looks for changes that other processes made. Its first look is over when it has started."""

    def __init__(self, fleet: FleetState, *, interval_s: float = WATCH_S) -> None:
        self._fleet = fleet
        self._again = Periodic("fleet", fleet.refresh, interval_s=interval_s)

    def start(self) -> None:
        self._fleet.refresh()
        self._again.start()

    def wake(self) -> None:
        """Look now, not only at the next turn."""
        self._again.wake()

    def stop(self) -> None:
        self._again.stop()
