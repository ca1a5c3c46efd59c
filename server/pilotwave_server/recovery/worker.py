"""Notice that devices are ahead, at the start and when one says so, and lift what may be lifted;
after a restore, notice which devices this database does not know.

Looking costs a reading of the table of devices, so it is done once at the start and then only after
a check-in that told of more than this process knows, never for more than a small part of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_server.audit.notices import put_notice
from pilotwave_server.db import Database
from pilotwave_server.recovery.ahead import FORK, SHOWN
from pilotwave_server.recovery.lift import lift_by_itself
from pilotwave_server.recovery.put_back import restored_from
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.workers import Periodic

log = logging.getLogger(__name__)
INTERVAL_S = 3600.0
WATCHED = timedelta(days=30)
NOT_KNOWN = (
    "checks in, but this database, which was restored from a backup of {made_at}, does not know "
    "it. If it enrolled after that, enrol it again; if not, somebody asks under its name."
)
REST = 5.0


class NewestVersions(Protocol):
    """The newest TUF versions that this process knows (`fleet.state.Hint`)."""

    @property
    def root(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def snapshot(self) -> int: ...


class Recovery:
    """Looks for devices that are ahead of this server."""

    def __init__(self, db: Database, trust: TrustStore, clock: Callable[[], datetime]) -> None:
        self._db, self._trust, self._clock = db, trust, clock
        self._restored = ""
        self._told = 0
        self._unknown: list[str] = []
        self._again = Periodic(
            "recovery", self.look, interval_s=INTERVAL_S, rest=REST, can_wait=True
        )

    def start(self) -> None:
        with self._db.read() as session:
            self._restored = restored_from(session, since=self._clock() - WATCHED)
        self._again.start()
        self._again.wake()

    def stop(self) -> None:
        self._again.stop()

    def look(self) -> None:
        """Look once, and lift what may be lifted."""
        self._tell_unknown()
        done = lift_by_itself(self._db, self._trust, now=self._clock())
        if done is not None:
            log.warning("%s; lifted to %s", done.ahead.sentence, done.after)

    def _tell_unknown(self) -> None:
        new = self._unknown[self._told :]
        if new:
            with self._db.write() as session:
                for name in new:
                    sentence = NOT_KNOWN.format(made_at=self._restored)
                    put_notice(
                        session, object=f"device/{name}", sentence=sentence, now=self._clock()
                    )
            self._told += len(new)

    def unknown(self, device: str) -> None:
        """Hear that something checked in under a name that is not known here. It may be anybody:
        the first few after a restore are told to people, once each."""
        if self._restored and len(self._unknown) < SHOWN and device not in self._unknown:
            self._unknown.append(device)
            self._again.wake()

    def heard(self, check_in: CheckIn, seq: int, known: NewestVersions) -> None:
        """Hear a device's report, `seq` being that of its directive here: cheap, on the event loop,
        from memory alone."""
        tuf = check_in.tuf
        refused = check_in.refusal is not None and check_in.refusal["reason"] == FORK
        if (
            refused
            or check_in.directive_seq > seq
            or tuf["timestamp"] > known.timestamp
            or tuf["snapshot"] > known.snapshot
            or tuf["root"] > known.root
        ):
            self._again.wake()
