"""Ask the bigger model's server from any thread, and wait no longer than was said.

A few threads ask, each over a connection of its own. Whoever waits stops waiting at the deadline,
whatever the network does meanwhile (a name that does not resolve has no deadline of its own). A
server that failed several times in a row is left alone for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone

from pilotwave_agent.live.tier_rules import Place
from pilotwave_agent.net.inference import InferenceServer, Inferred, Question

MOST_AT_ONCE = 4
_FAILURES = 3
_FIRST_REST_S, _LAST_REST_S = 1.0, 60.0


class NoAnswer(Exception):
    """The bigger model gave no answer; the sentence says why."""


class Asking:
    """One server, asked from many threads."""

    def __init__(self, place: Place, within_s: float) -> None:
        self.place = place
        self._within_s = within_s
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="pilotwave-escalate")
        self._turns = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._own = threading.local()
        self._servers: list[InferenceServer] = []
        self._failed, self._rest_until = 0, 0.0

    def check_open(self) -> None:
        """Raise `NoAnswer` while the server is left alone."""
        if time.monotonic() < self._rest_until:
            raise NoAnswer("the server failed several times and is left alone for a while")

    def wait_for(self, future: Future[Inferred]) -> Inferred:
        """Return the answer to a question that was begun. Raises `NoAnswer`."""
        try:
            return future.result(self._within_s)
        except NotDone as e:
            self._count(failed=True)
            raise NoAnswer(f"no answer within {self._within_s * 1000:g} ms") from e
        except Exception as e:  # whatever it is, the small model has answered
            self._count(failed=True)
            raise NoAnswer(f"{type(e).__name__}: {e}") from e

    def ask_later(self, question: Question, then: Callable[[Inferred], None]) -> None:
        """Ask without waiting; `then` is called with the answer, if there is one. Raises
        `NoAnswer` where nobody can ask now."""

        def done(future: Future[Inferred]) -> None:
            if future.exception() is None:
                then(future.result())

        self.begin(question).add_done_callback(done)

    def begin(self, question: Question) -> Future[Inferred]:
        """Begin to ask. Raises `NoAnswer` where nobody can ask now."""
        self.check_open()
        if not self._turns.acquire(blocking=False):
            raise NoAnswer(f"{MOST_AT_ONCE} questions wait for an answer already")
        try:
            future = self._pool.submit(self._work, question)
        except RuntimeError as e:
            self._turns.release()
            raise NoAnswer("the application is ending") from e
        future.add_done_callback(lambda _: self._turns.release())
        return future

    def _work(self, question: Question) -> Inferred:
        server: InferenceServer | None = getattr(self._own, "server", None)
        if server is None:
            server = InferenceServer(self.place.url, pin=self.place.pin)
            self._own.server = server
            self._servers.append(server)
        answer = server.ask(question, self._within_s)
        self._count(failed=False)
        return answer

    def _count(self, *, failed: bool) -> None:
        self._failed = self._failed + 1 if failed else 0
        if self._failed >= _FAILURES:
            rest = _FIRST_REST_S * 2.0 ** min(self._failed - _FAILURES, 10)
            self._rest_until = time.monotonic() + min(rest, _LAST_REST_S)

    def close(self, *, wait: bool) -> None:
        """End the threads; `wait` for a question in flight, no longer than it may take."""
        ending = threading.Thread(target=self._end, name="pilotwave-escalate-end", daemon=True)
        ending.start()
        if wait:
            ending.join(self._within_s)

    def _end(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for server in self._servers:
            server.close()
