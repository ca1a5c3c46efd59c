"""Write check-ins, many in one transaction: only what is committed is acknowledged, and a commit
is dear.

One thread takes what has come in while the last batch was being written, up to MAX_BATCH. A
check-in waits for its answer until the commit. Threads hand over to each other once a batch, not
once a check-in: each hand-over costs more than what is handed over. If a batch fails as a whole,
its check-ins are written one by one, so that one that the database refuses does not take others
with it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pilotwave_server.errors import ServerError
from pilotwave_server.problems import DatabaseUnavailable
from pilotwave_server.telemetry.store import Stored, VerifiedCheckIn

log = logging.getLogger(__name__)

MAX_BATCH = 256
MAX_WAITING = 8192
# A transaction costs much more than a check-in in it. A lone one hardly waits for company; the more
# there were in the last batch, the longer the next one is gathered.
GATHER_EACH_S = 0.004
GATHER_MOST_S = 0.1

Store = Callable[[Sequence[VerifiedCheckIn]], list[Stored]]
_Job = tuple[VerifiedCheckIn, "asyncio.Future[Stored]"]
_Answer = Stored | ServerError


class CheckInWriter:
    """Calls `store` (one transaction) with batches, on a thread of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: deque[_Job] = deque()
        self._coming = threading.Condition()
        self._stopping = False
        self._gather_s = GATHER_EACH_S
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="check-ins", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is waiting, then end."""
        with self._coming:
            self._stopping = True
            self._coming.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    async def write(self, item: VerifiedCheckIn) -> Stored:
        """Return when `item` is committed or refused. Raises DatabaseUnavailable."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        with self._coming:
            if self._stopping or len(self._jobs) >= MAX_WAITING:
                raise DatabaseUnavailable("more check-ins are waiting than can be written; later")
            self._jobs.append((item, future))
            # the first ends the thread's rest, the last one its gathering
            if len(self._jobs) in (1, MAX_BATCH):
                self._coming.notify()
        return await future

    def _run(self) -> None:
        while True:
            with self._coming:
                while not self._jobs and not self._stopping:
                    self._coming.wait()
                if not self._jobs:
                    return
                self._coming.wait_for(self._enough, self._gather_s)
                batch = self._take()
                self._gather_s = min(GATHER_EACH_S * max(len(batch), 1), GATHER_MOST_S)
            self._write(batch)

    def _enough(self) -> bool:
        return len(self._jobs) >= MAX_BATCH or self._stopping

    def _take(self) -> list[_Job]:
        """Take the oldest jobs, at most one of each device: a second one waits."""
        batch: list[_Job] = []
        later: list[_Job] = []
        devices: set[int] = set()
        while self._jobs and len(batch) < MAX_BATCH:
            job = self._jobs.popleft()
            if job[0].device_id in devices:
                later.append(job)
            elif not job[1].cancelled():  # its sender went away
                devices.add(job[0].device_id)
                batch.append(job)
        self._jobs.extendleft(reversed(later))
        return batch

    def _write(self, batch: list[_Job]) -> None:
        try:
            answers = self._store([item for item, _ in batch])
        except Exception as error:
            self._failed(batch, error)
        else:
            _tell(zip((future for _, future in batch), answers, strict=True))

    def _failed(self, batch: list[_Job], error: Exception) -> None:
        if len(batch) > 1 and not isinstance(error, (OperationalError, PoolTimeout)):
            for job in batch:
                self._write([job])
            return
        log.error("check-ins were not written: %s", type(error).__name__, exc_info=error)
        problem = (
            error
            if isinstance(error, ServerError)
            else DatabaseUnavailable("the report could not be stored; send it again")
        )
        _tell((future, problem) for _, future in batch)


def _tell(told: Iterable[tuple[asyncio.Future[Stored], _Answer]]) -> None:
    """Answer those that wait, each on its own event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Stored], _Answer]]]
    by_loop = defaultdict(list)
    for future, answer in told:
        by_loop[future.get_loop()].append((future, answer))
    for loop, answers in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, answers)
        except RuntimeError:
            log.warning("%d check-ins were written after their loop had ended", len(answers))


def _settle(answers: list[tuple[asyncio.Future[Stored], _Answer]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Stored):
            future.set_result(answer)
        else:
            future.set_exception(answer)
