"""Fetch one file from mirrors first, and from the server when they fail.

A mirror never sees the device's token: it is handed a link that the server gave for this one file,
good for minutes. The numbers that count (length, digest) are the manifest's, whoever sends the
bytes; what a mirror sent before it died is kept and gone on with, and when the whole turns out
wrong, the mirrors that had a part in it are left alone and the file begins anew.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from pilotwave_agent.net.http import BadAnswer, Channel, HttpAnswer, Streamed, TooSlow, Unreachable
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

LEAST_RATE = 4096
"""Bytes per second below which a mirror is given up. The server may be slower: it is the last."""
WINDOW_S = 10.0
BREAKS = 3
_MARGIN_S = 10.0
_ANSWERS = (200, 206, 416)
_BUSY = (429, 503)
_WRONG = (Reason.BLOB_MISMATCH, Reason.BLOB_TOO_LONG, Reason.BLOB_TRUNCATED)


@dataclass(frozen=True)
class Link:
    """A path with leave in its query, when that ends (monotonic seconds), and where in an object
    store the file lies, if the server says so. Nothing is known of that URL yet."""

    path: str
    ends: float
    url: object = None


class _NoLink(Exception):
    """The server gives no link; `answer` is what it said."""

    def __init__(self, answer: HttpAnswer) -> None:
        self.answer = answer
        super().__init__(f"status {answer.status}")


@dataclass
class Sources:
    """The ways to the file at `path` (`/blobs/…` or `/deltas/…`), until it is here whole."""

    origin: Channel
    token: str
    path: str
    mirrors: Mirrors = field(default_factory=Mirrors)
    clock: Callable[[], float] = time.monotonic
    used: set[str] = field(default_factory=set)
    _using: str | None = None
    _link: Link | None = None
    _breaks: int = 0

    @contextmanager
    def open(self, headers: Mapping[str, str], *, deadline_s: float) -> Iterator[Streamed]:
        """Ask for the file, or for the range in `headers`; hand out the first answer of use.

        Of a mirror, only the statuses 200, 206 and 416 are of use. Raises what the server's channel
        raises; errors while the body is read are for `goes_on` and `at_fault`.
        """
        headers = {"Accept-Encoding": "identity", **headers}
        with ExitStack() as stack:
            yield (
                self._mirrored(stack, headers, deadline_s)
                or self._direct(stack, headers, deadline_s)
                or stack.enter_context(self._from_origin(headers, deadline_s))
            )

    @contextmanager
    def _from_origin(self, headers: Mapping[str, str], deadline_s: float) -> Iterator[Streamed]:
        self._using = None
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        with self.origin.stream("GET", self.path, headers=headers, deadline_s=deadline_s) as answer:
            yield answer

    def _mirrored(
        self, stack: ExitStack, headers: Mapping[str, str], deadline_s: float
    ) -> Streamed | None:
        # the name is the content: without If-Range, a cache need not begin at the first byte
        headers = {k: v for k, v in headers.items() if k != "If-Range" or "/deltas/" in self.path}
        for url in self.mirrors.usable():
            try:
                link = self._linked()
            except _NoLink as no:
                # that stands for the file; but a server may know blobs and no links
                self._using = None
                known = no.answer.status != 404 or "/deltas/" in self.path
                return _Said(no.answer) if known else None
            if answer := self._ask(stack, url, link.path, headers, deadline_s):
                return answer
        return None

    def _direct(
        self, stack: ExitStack, headers: Mapping[str, str], deadline_s: float
    ) -> Streamed | None:
        """Ask the object store that the server names, if this device's settings name it too."""
        if not self.path.startswith("/blobs/") or not self.mirrors.any_host():
            return None
        try:
            found = self.mirrors.usable_host(self._linked().url)
        except (_NoLink, Unreachable, BadAnswer):
            return None  # the server is asked for the file itself, and says what is wrong
        if found is None:
            return None
        host, target = found
        headers = {k: v for k, v in headers.items() if k != "If-Range"}
        answer = self._ask(stack, host, target, headers, deadline_s)
        if answer is not None:
            answer.count = lambda came: self.mirrors.direct_bytes.update({host: came})
        return answer

    def _ask(
        self,
        stack: ExitStack,
        url: str,
        path: str,
        headers: Mapping[str, str],
        deadline_s: float,
    ) -> _Watched | None:
        """Ask one source; None where its answer is of no use."""
        channel = self.mirrors.channel(url)
        try:
            answer = stack.enter_context(
                channel.stream("GET", path, headers=headers, deadline_s=deadline_s)
            )
        except (Unreachable, BadAnswer) as e:
            self.mirrors.failed(url, str(e))
            return None
        if answer.status in _ANSWERS:
            self._using = url
            self.used.add(url)
            return _Watched(answer, self.clock)
        stack.close()
        # a gateway hands on that the server is busy: that is none of its own doing
        if not (answer.status in _BUSY and "retry-after" in answer.headers):
            self.mirrors.failed(url, f"it answered with status {answer.status}")
        return None

    def _linked(self) -> Link:
        if self._link is None or self.clock() >= self._link.ends:
            headers = {"Authorization": f"Bearer {self.token}"}
            asked = self.clock()
            answer = self.origin.request("GET", f"/device/v1/links{self.path}", headers=headers)
            if answer.status != 200:
                raise _NoLink(answer)
            path, lifetime_s, url = _parse(answer, self.path)
            self._link = Link(path, asked + max(lifetime_s - _MARGIN_S, 1.0), url)
        return self._link

    # --- what became of it

    def goes_on(self, e: Unreachable | BadAnswer, *, came: bool) -> bool:
        """Say whether a line that broke was a mirror's, so that the file is to be gone on with.

        A mirror that brought bytes (`came`) is asked again, a few times: its link may have ended.
        """
        url, self._using = self._using, None
        if url is None:
            return False
        ended = self._link is not None and self.clock() >= self._link.ends
        if came and not isinstance(e, TooSlow) and (ended or self._breaks < BREAKS):
            self._breaks += not ended
            return True
        self.mirrors.failed(url, str(e))
        return True

    def at_fault(self, no: RefusedError) -> bool:
        """Say whether the file may be right from another source: leave those mirrors alone that had
        a part in this. What the server itself refuses is no mirror's fault."""
        wrong, using = no.reason in _WRONG, self._using
        blamed = self.used if wrong else self.used & {using}
        for url in blamed:
            self.mirrors.failed(url, no.sentence, wrong=wrong)
        self.used, self._using = self.used - blamed, None
        return bool(blamed)

    def served(self) -> None:
        """The file is here and the right one."""
        for url in self.used:
            if self.mirrors.is_well(url):
                self.mirrors.served(url)


def _parse(answer: HttpAnswer, path: str) -> tuple[str, float, object]:
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(answer.body)
        link, lifetime_s = found["path"], found["expires_in_s"]
        if re.fullmatch(re.escape(path) + r"\?link=[\w.~-]{1,256}", link, re.ASCII):
            return link, float(lifetime_s), found.get("url")
    raise BadAnswer(f"expected a link to {path}; the server answered something else")


class _Said(Streamed):
    """What the server answered already."""

    def __init__(self, answer: HttpAnswer) -> None:
        self.status, self.headers = answer.status, answer.headers

    @property
    def length(self) -> int | None:
        return 0

    def read(self, limit: int = 1 << 16) -> bytes:
        return b""


class _Watched(Streamed):
    """A mirror's answer, given up when it keeps its reader waiting for almost nothing."""

    def __init__(self, answer: Streamed, clock: Callable[[], float]) -> None:
        self.status, self.headers, self._response = answer.status, answer.headers, answer._response
        self._clock = clock
        self.count: Callable[[int], None] = lambda came: None
        self._waited = 0.0
        self._came = 0

    def read(self, limit: int = 1 << 16) -> bytes:
        began = self._clock()
        data = super().read(limit)
        # what the reader itself takes its time for is no fault of the mirror's
        self._waited += self._clock() - began
        self._came += len(data)
        self.count(len(data))
        if self._waited >= WINDOW_S:
            if self._came < LEAST_RATE * self._waited:
                rate = self._came / self._waited
                raise TooSlow(f"{rate:.0f} bytes per second, under {LEAST_RATE}")
            self._waited, self._came = 0.0, 0
        return data
