"""Bring this host's TUF files up to the database when a device asks for what is not there yet.

Hosts export for themselves, a moment after a commit. A device that took a timestamp from one may
ask another for the rest in that moment, or for the timestamp, and must get nothing older. So
whoever asks for `timestamp.json`, or for a file that is missing, waits for a look at the database;
all that wait share one, however many they are.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.concurrency import run_in_threadpool

from pilotwave_server.registry.trust import TrustStore

log = logging.getLogger(__name__)

PATIENCE_S = 2.0
"""What is on this host's disk is given out after that: the database hangs."""


class FreshExport:
    """One server process's looks: one at a time."""

    def __init__(self, trust: TrustStore, *, shared_folder: bool) -> None:
        self._trust = trust
        # then the file was written before the commit was told to anybody
        self.timestamp_is_newest = shared_folder
        self._turn = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Return after a look that began after this call, or after PATIENCE_S."""
        if self._next is None:
            self._next = asyncio.create_task(self._look())
        await asyncio.wait({self._next}, timeout=PATIENCE_S)

    async def _look(self) -> None:
        async with self._turn:
            # from here on it is too late for whoever comes: they want the next one
            self._running, self._next = self._next, None
            try:
                await run_in_threadpool(self._trust.refresh)
            except Exception as error:
                why = type(error).__name__
                log.warning("the TUF files given out are those on this host's disk: %s", why)
