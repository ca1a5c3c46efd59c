"""The worker that sends what is due, several calls at a time and few of them to one webhook, so
that one that stalls holds up nobody else.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
import threading
import time
from collections import Counter
from contextlib import suppress

from pilotwave_server import __version__
from pilotwave_server.clock import Clock
from pilotwave_server.db import Database
from pilotwave_server.errors import ServerError
from pilotwave_server.events.settled import Settled
from pilotwave_server.metrics import Metrics
from pilotwave_server.webhooks import deliveries
from pilotwave_server.webhooks.deliveries import Due
from pilotwave_server.webhooks.sending import CallOutcome, call
from pilotwave_server.webhooks.signing import sign
from pilotwave_server.webhooks.targets import Targets, read_url

log = logging.getLogger(__name__)

LOOK_S = 0.5
AT_ONCE = 32
AT_ONCE_PER_WEBHOOK = 4
SWEEP_S = 3600.0
STOP_S = 5.0


class Sender:
    """Runs on one thread with an event loop of its own; the database is asked on others."""

    def __init__(
        self,
        db: Database,
        settled: Settled,
        *,
        clock: Clock,
        metrics: Metrics,
        allowed: Targets,
        timeout_s: float,
    ) -> None:
        self._db = db
        self._settled = settled
        self._clock = clock
        self._counts = metrics.webhook_calls
        self._allowed = allowed
        self._timeout_s = timeout_s
        self._busy: Counter[int] = Counter()
        self._calls: set[asyncio.Task[None]] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._sweep_at = 0.0

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made for the first call: reading the system's authorities takes 40 ms of CPU."""
        return ssl.create_default_context()

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End. Calls that are under way get a few seconds; cut off, they are made anew later."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        self._woken = asyncio.Event()
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                await asyncio.to_thread(self._add)
                for due in await asyncio.to_thread(self._take):
                    self._begin(due)
            except Exception:
                log.exception("webhooks failed; they will be tried again")
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_S)
        if self._calls:
            await asyncio.wait(self._calls, timeout=STOP_S)

    def _add(self) -> None:
        """Make deliveries of what is settled."""
        until = self._settled.place
        with self._db.read() as session:
            behind = deliveries.behind(session, until)
        for webhook_id in behind:
            with self._db.write() as session:
                deliveries.add_deliveries(session, webhook_id, until=until, now=self._clock())
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_S
            with self._db.write() as session:
                deliveries.sweep(session, now=self._clock())

    def _take(self) -> list[Due]:
        """Take what is due, as far as there is room for all and for each."""
        free = AT_ONCE - len(self._calls)
        busy = [hook for hook, calls in self._busy.items() if calls >= AT_ONCE_PER_WEBHOOK]
        now = self._clock()
        with self._db.read() as session:
            if free <= 0 or not deliveries.any_due(session, now=now, busy=busy):
                return []
        room = {hook: AT_ONCE_PER_WEBHOOK - calls for hook, calls in self._busy.items()}
        with self._db.write() as session:
            return deliveries.take_due(
                session, now=now, room=room, each=AT_ONCE_PER_WEBHOOK, limit=free
            )

    def _begin(self, due: Due) -> None:
        self._busy[due.webhook_id] += 1
        task = asyncio.create_task(self._send(due))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _send(self, due: Due) -> None:
        try:
            outcome = await self._call(due)
            self._counts.labels("delivered" if outcome.ok else "failed").inc()
            await asyncio.to_thread(self._note, due, outcome)
        except Exception:
            log.exception("what came of a webhook's call was not written; it is made again")
        finally:
            self._busy[due.webhook_id] -= 1
            self._woken.set()

    async def _call(self, due: Due) -> CallOutcome:
        try:
            target = read_url(due.url)
        except ServerError as error:
            return CallOutcome(None, error.detail)
        timestamp = int(self._clock().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"Pilotwave/{__version__}",
            "webhook-id": due.message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(
                due.secret, id=due.message_id, timestamp=timestamp, body=due.body
            ),
        }
        return await call(
            target,
            due.body,
            headers,
            allowed=self._allowed,
            timeout_s=self._timeout_s,
            tls=self._tls,
        )

    def _note(self, due: Due, outcome: CallOutcome) -> None:
        with self._db.write() as session:
            deliveries.note_outcome(session, due, outcome, now=self._clock())
