"""Answer a device's poll from memory: plain ASGI, no framework, no database, no JSON when nothing
changed. Its answers are as small as HTTP allows, because some devices pay by the byte.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hmac import compare_digest
from typing import ClassVar, Literal

from starlette.types import Receive, Scope, Send

from pilotwave_server.blobs.flow import Flow
from pilotwave_server.clock import Clock
from pilotwave_server.device_api.directives import Director, make_directive
from pilotwave_server.device_api.tokens import BadToken, DeviceTokens, peek_unverified
from pilotwave_server.device_api.traces import NAME, DeviceTraces
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.downloads.counting import For
from pilotwave_server.errors import ServerError
from pilotwave_server.fleet.loader import Loader
from pilotwave_server.fleet.records import DeviceRecord, Order
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.metrics import Metrics
from pilotwave_server.pacing import Pacing
from pilotwave_server.problems import error_response
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot

ENROLLED = "enrolled"
BEARER = b"Bearer "


class RevokedToken(BadToken):
    """The device was revoked, decommissioned or enrolled anew after this token was given out."""

    code: ClassVar[str] = "revoked"


class Polls:
    """`GET /device/v1/directive`, and the question whether a token may read a blob."""

    def __init__(
        self,
        fleet: FleetState,
        loader: Loader,
        tokens: DeviceTokens,
        *,
        director: Director,
        clock: Clock,
        metrics: Metrics,
        lifetime_s: int,
        note_seen: Callable[[DeviceRecord], None],
        note_s: float,
        ask_lease: Callable[[DeviceRecord, float], None],
        downloads: Admission,
        pacing: Pacing,
        traces: DeviceTraces | None = None,
    ) -> None:
        self._pacing = pacing
        self._traces = traces
        self._fleet = fleet
        self._tokens = tokens
        self._director = director
        self._clock = clock
        self._half_s = lifetime_s // 2
        self._lifetime_s = lifetime_s
        self._note_seen = note_seen
        self._note_s = note_s
        self._ask_lease = ask_lease
        self._loader = loader
        self._downloads = downloads
        self._metrics = metrics
        self._unchanged = metrics.polls.labels("304")
        self._changed = metrics.polls.labels("200")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authorization = seen_etag = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"if-none-match":
                seen_etag = value
        now = self._clock()
        try:
            record = self._known(authorization, now.timestamp())
            if record is None:
                record = await self._loaded(authorization, now.timestamp())
            seen = record.etag == seen_etag or self._was_told(record, seen_etag, now)
            body = b"" if seen else self._directive(record, now)
        except ServerError as error:
            self._metrics.polls.labels(str(error.status)).inc()
            if error.status < 500:
                await self._pacing.slow_down(scope)
            await error_response(error)(scope, receive, send)
            return
        # a minute has passed, or the clock was set back
        if not 0.0 < record.note_after - record.seen <= self._note_s:
            self._note_seen(record)
        headers = [(b"etag", record.etag), (b"pilotwave-tuf", self._fleet.hint.header)]
        if not body:
            self._unchanged.inc()
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body"})
            return
        self._changed.inc()
        headers += [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
        ]
        if self._traces is not None and (told := self._traces.served(record, now.timestamp())):
            headers.append((NAME, told))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def may_read(self, bearer: str, sha256: str, *, path: str = "") -> Flow | Literal[False]:
        """A gate for blobs: may the device of this token, or link to `path`, read that one, and
        for what?"""
        record = await self.known(BEARER + bearer.encode("latin-1", "replace"), path)
        entry = self._fleet.wants_blob(record, sha256)
        if entry is None:
            return False
        what = (entry.model, entry.version, entry.variant, entry.rollout or "")
        return self._downloads.flow(record.name, For(record.id, *what, record.site))

    async def link(self, bearer: str, path: str, *, lifetime_s: int) -> str:
        """Return a link to `path` for the device of this token. What it may read is asked when the
        link is used. Raises `BadToken`, `ExpiredToken`, `RevokedToken`."""
        record = await self.known(BEARER + bearer.encode("latin-1", "replace"))
        expires = int(self._clock().timestamp()) + lifetime_s
        return self._tokens.issue(record.name, record.generation, expires=expires, path=path)

    async def site_of(self, bearer: str) -> str:
        """Return the site of this token's device; empty: none. Raises as `link` does."""
        return (await self.known(BEARER + bearer.encode("latin-1", "replace"))).site

    async def known(self, authorization: bytes, path: str = "") -> DeviceRecord:
        """Return the device of a token or link, its order up to date. Raises what `_known` does."""
        moment = self._clock().timestamp()
        record = self._known(authorization, moment, path)
        return record or await self._loaded(authorization, moment, path)

    def look(self, name: str, moment: float) -> DeviceRecord | None:
        """Return a device that listens, its order up to date and the leases that it wants asked
        for, as if it had polled. None: load it first."""
        record, snapshot = self._fleet.records.get(name), self._fleet.snapshot
        if record is None or (
            record.ordered_in is not snapshot and not self._order(record, snapshot)
        ):
            return None
        if record.wants and moment >= record.asks_after and record.state == ENROLLED:
            self._ask_lease(record, moment)
        return record

    def _known(self, authorization: bytes, moment: float, path: str = "") -> DeviceRecord | None:
        """Return the device of a token, its order and ETag up to date; None: load it first.

        With `path`, the token is a link to it.

        Raises `BadToken`, `ExpiredToken`, `RevokedToken`.
        """
        if not authorization.startswith(BEARER):
            raise BadToken("send the device's read token as `Authorization: Bearer …`")
        token = authorization[len(BEARER) :]
        device, generation, expires = peek_unverified(token)
        fleet = self._fleet
        snapshot = fleet.snapshot
        record = fleet.records.get(device)
        # a mac that was found good needs no second look until it expires
        if path:
            self._tokens.check(token, now=moment, path=path)
            if record is None:
                return None
        elif record is None or expires <= moment or not compare_digest(record.token, token):
            self._tokens.check(token, now=moment)
            if record is None:
                return None
            record.token = token
        if record.ordered_in is not snapshot and not self._order(record, snapshot):
            return None
        if record.generation != generation or record.state != ENROLLED:
            raise RevokedToken("this device was revoked or enrolled anew: enrol again")
        if moment >= record.etag_until and record.order is not None:
            period, into = divmod(moment + record.phase % self._half_s, self._half_s)
            if record.refusing:
                record.etag = self._etag_of_seq(record, record.order, int(period))
            else:
                record.etag = record.order.etag(int(period), self._fleet.hint.director)
            record.etag_until = moment - into + self._half_s
        record.seen = moment
        if record.wants and moment >= record.asks_after:
            self._ask_lease(record, moment)
        return record

    def _was_told(self, record: DeviceRecord, etag: bytes, now: datetime) -> bool:
        """Whether the device has this very set from when, or where, it was known to refuse one."""
        if record.refusing or not etag or record.order is None:
            return False
        moment = now.timestamp() + record.phase % self._half_s
        return etag == self._etag_of_seq(record, record.order, int(moment // self._half_s))

    def _etag_of_seq(self, record: DeviceRecord, order: Order, period: int) -> bytes:
        return order.etag_of(record.seq, period, self._fleet.hint.director)

    def _order(self, record: DeviceRecord, snapshot: FleetSnapshot) -> bool:
        """Resolve anew. False where record and snapshot were not taken at one moment."""
        if record.reading_key != snapshot.reading_key or self._fleet.snapshot is not snapshot:
            return False
        record.order = self._fleet.order(record, snapshot)
        record.ordered_in = snapshot
        record.etag_until = 0.0
        return True

    async def _loaded(self, authorization: bytes, moment: float, path: str = "") -> DeviceRecord:
        record: DeviceRecord | None = None
        while record is None:
            device = peek_unverified(authorization[len(BEARER) :]).device
            if await self._loader.get(device) is None:
                raise RevokedToken("there is no such device any more: enrol again")
            record = self._known(authorization, moment, path)
        return record

    def _directive(self, record: DeviceRecord, now: datetime) -> bytes:
        order, snapshot = record.order, record.ordered_in
        assert order is not None
        assert snapshot is not None
        return make_directive(
            record,
            order,
            fleet=snapshot.fleet,
            fleet_revision=snapshot.revision,
            min_snapshot=self._fleet.hint.snapshot,
            now=now,
            lifetime_s=self._lifetime_s,
            director=self._director,
        )
