"""Hear from PostgreSQL of each revision that another process made, the moment it is committed.

A connection that is lost costs nothing but time: who is told looks at the database by itself too
(`fleet.setup.Watcher`).
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Any

from psycopg import Connection, sql

from pilotwave_server.db import REVISION_CHANNEL
from pilotwave_server.engines import listening_engine

log = logging.getLogger(__name__)

RETRY_S, RETRY_MOST_S = 1.0, 30.0
# a connection that died without a word shows when something is sent on it
ASK_S = 60.0


class RevisionListener:
    """Calls `tell` after each commit that moved the counter, and after each time in which it may
    have missed one. A `workers.Worker`."""

    def __init__(self, url: str, tell: Callable[[], object]) -> None:
        self._engine = listening_engine(url)
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake, self._woken = -1, -1
        self.listening = False

    def start(self) -> None:
        self._stopping.clear()
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, name="revisions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is None:
            return
        self._stopping.set()
        os.write(self._wake, b".")
        self._thread.join()
        self._thread = None
        os.close(self._wake)
        os.close(self._woken)
        self._engine.dispose()

    def _run(self) -> None:
        wait_s = RETRY_S
        while not self._stopping.is_set():
            try:
                self._listen()
            except Exception as error:
                said = " ".join(str(error).split())[:200]
                log.warning("changes of other hosts are polled for: LISTEN failed: %s", said)
            wait_s = RETRY_S if self.listening else min(wait_s * 2, RETRY_MOST_S)
            self.listening = False
            self._stopping.wait(wait_s)

    def _listen(self) -> None:
        held = self._engine.raw_connection()
        try:
            connection: Connection[Any] = held.driver_connection  # type: ignore[assignment]  # psycopg's, by the URL
            connection.autocommit = True
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(REVISION_CHANNEL)))
            self.listening = True
            self._tell()
            while not self._stopping.is_set():
                ready, _, _ = select.select([connection.fileno(), self._woken], [], [], ASK_S)
                if not ready:
                    connection.execute("SELECT 1")
                # all that came while the last were being taken in count as one
                elif connection.fileno() in ready and list(connection.notifies(timeout=0)):
                    self._tell()
        finally:
            held.invalidate()
