"""Load devices for the event loop, many with one query: after a restart they all come at once.

Whoever asks while a batch is being read waits for the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.problems import DatabaseUnavailable

log = logging.getLogger(__name__)

BATCH = 400

Load = Callable[[Collection[str]], dict[str, DeviceRecord]]


class Loader:
    """Turns many `get` calls into few calls of `load`, which runs on a thread."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._waiting: dict[str, asyncio.Future[DeviceRecord | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, name: str) -> DeviceRecord | None:
        """Return the device's record, or None if there is none. DatabaseUnavailable."""
        future = self._waiting.get(name)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._waiting[name] = loop.create_future()
            if self._task is None or self._task.done():
                self._task = loop.create_task(self._run())
        # shielded: one caller that goes away must not cancel the others' answer
        return await asyncio.shield(future)

    async def _run(self) -> None:
        while self._waiting:
            names = list(self._waiting)[:BATCH]
            batch = {name: self._waiting.pop(name) for name in names}
            try:
                found = await asyncio.to_thread(self._load, names)
            except Exception as cause:
                log.warning("devices could not be loaded: %s", type(cause).__name__)
                error = DatabaseUnavailable("the database does not answer; try again soon")
                error.__cause__ = cause
                for future in batch.values():
                    future.set_exception(error)
                    future.exception()  # seen, even if every caller has gone away
            else:
                for name, future in batch.items():
                    future.set_result(found.get(name))
