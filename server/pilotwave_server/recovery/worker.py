"""Notice that devices are ahead, at the start and when one says so, and lift what may be lifted.

Looking costs a reading of the table of devices, so it is done once at the start and then only after
a check-in that told of more than this process knows, never for more than a small part of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_server.db import Database
from pilotwave_server.recovery.ahead import FORK
from pilotwave_server.recovery.lift import lift_by_itself
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.workers import Periodic

log = logging.getLogger(__name__)
INTERVAL_S = 3600.0
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
        self._again = Periodic(
            "recovery", self.look, interval_s=INTERVAL_S, rest=REST, can_wait=True
        )

    def start(self) -> None:
        self._again.start()
        self._again.wake()

    def stop(self) -> None:
        self._again.stop()

    def look(self) -> None:
        """Look once, and lift what may be lifted."""
        done = lift_by_itself(self._db, self._trust, now=self._clock())
        if done is not None:
            log.warning("%s; lifted to %s", done.ahead.sentence, done.after)

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
