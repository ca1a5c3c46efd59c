"""Take a device's signed report: `POST /device/v1/check-in`. Plain ASGI.

The steps are numbered as in docs/protocol.md: 1 to 6 here, 7 to 13 with others of its kind in
`ingest.py`, and only then the acknowledgement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

from starlette.types import Receive, Scope, Send

from pilotwave_protocol import dsse
from pilotwave_protocol.dsse import Unverified
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    MAX_CHECK_IN_BYTES,
    CheckIn,
    parse_check_in,
)
from pilotwave_protocol.push import PushTerms
from pilotwave_server.clock import Clock
from pilotwave_server.device_api.body import SenderGone, read_body
from pilotwave_server.device_api.budgets import DeviceBudgets, TooManyCheckIns
from pilotwave_server.device_api.replies import Replies
from pilotwave_server.device_api.steady import read_steady
from pilotwave_server.device_api.tokens import DeviceTokens
from pilotwave_server.device_api.traces import DeviceTraces, said_in
from pilotwave_server.device_api.writer import CheckInWriter
from pilotwave_server.devices.silence import note_interval_s
from pilotwave_server.envelopes import is_signed_by
from pilotwave_server.errors import Forbidden, Invalid, ServerError, Unauthorised
from pilotwave_server.fleet.loader import Loader
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.metrics import Metrics
from pilotwave_server.pacing import Pacing
from pilotwave_server.problems import error_response
from pilotwave_server.settings import Settings
from pilotwave_server.telemetry.store import Revoked, Stored, VerifiedCheckIn


class BadCheckIn(Invalid):
    code: ClassVar[str] = "bad_check_in"


class UnknownDevice(Unauthorised):
    code: ClassVar[str] = "unknown_device"


class BadSignature(Unauthorised):
    code: ClassVar[str] = "bad_signature"


class Pending(Forbidden):
    """The device asked to join and waits for an operator."""

    code: ClassVar[str] = "pending"


class FromOtherFleet(Forbidden):
    code: ClassVar[str] = "wrong_fleet"


class CheckIns:
    """Verifies, hands on to the writer, answers."""

    def __init__(
        self,
        fleet: FleetState,
        loader: Loader,
        writer: CheckInWriter,
        tokens: DeviceTokens,
        *,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        push_terms: Callable[[], PushTerms | None],
        pacing: Pacing,
        heard: Callable[[CheckIn, int], None],
        unknown: Callable[[str], None],
        traces: DeviceTraces | None = None,
    ) -> None:
        self._traces = traces
        self._unknown = unknown
        self._pacing = pacing
        self._budgets = DeviceBudgets(settings)
        self._turn = asyncio.Lock()
        self._heard = heard
        self._push_terms = push_terms
        self._fleet = fleet
        self._loader = loader
        self._writer = writer
        self._tokens = tokens
        self._settings = settings
        self._clock = clock
        self._counts = metrics.check_ins
        self._stored = metrics.check_ins.labels("stored")
        self._replies = Replies(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = b""
        try:
            await self._pacing.wait(scope)
            raw = await read_body(scope, receive, limit=MAX_CHECK_IN_BYTES)  # 1
            body = await self._take(raw, said_in(scope) if self._traces else "")
        except SenderGone:
            return
        except ServerError as error:
            self._counts.labels(error.code).inc()
            if error.status < 500 and not isinstance(error, TooManyCheckIns):
                self._pacing.refused(scope, size=len(raw))
            await error_response(error)(scope, receive, send)
            return
        self._stored.inc()
        headers = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _wait_for_turn(self) -> None:
        """Return once in each round of the event loop: a check-in takes as long as thirty polls, so
        a crowd of them would leave the polls little of it."""
        async with self._turn:
            await asyncio.sleep(0)

    async def _take(self, raw: bytes, traces: str) -> bytes:
        began = self._clock().timestamp()
        await self._wait_for_turn()
        claimed, check_in = _read(raw)  # 2
        record = await self._verify(claimed, check_in)  # 3, 4
        if check_in.fleet != self._fleet.snapshot.fleet:
            fleet = self._fleet.snapshot.fleet
            raise FromOtherFleet(f"this server's fleet is not {check_in.fleet}", fleet=fleet)  # 5
        check_in = await self._within_budget(record, check_in)  # 6
        # 7 to 13: returns when it is committed
        stored = await self._writer.write(VerifiedCheckIn(record.id, record.generation, check_in))
        if stored.refusal is not None:
            self._budgets.refund(record.id, check_in)
            raise stored.refusal
        # the record may have been loaded anew meanwhile
        current = self._fleet.records.get(record.name, record)
        current.heard(refusing=check_in.refusal is not None)
        if self._traces is not None and traces:
            self._traces.reported(current, check_in, traces, began)
        self._heard(check_in, max(current.revision, self._fleet.snapshot.revision))
        return self._reply(record, stored)  # 14

    async def _within_budget(self, record: DeviceRecord, check_in: CheckIn) -> CheckIn:
        """Return what may be stored of it. Raises TooManyCheckIns."""
        try:
            return self._budgets.spend(record.id, check_in)
        except TooManyCheckIns:
            await self._budgets.hold(record.id)
            raise

    async def _verify(self, claimed: Unverified, check_in: CheckIn) -> DeviceRecord:
        """Return the device that signed this. Raises what stands above."""
        record = self._fleet.records.get(check_in.device)
        if record is not None and record.state == "enrolled" and _signed_by(claimed, record):
            return record
        # another process may have enrolled or accepted it a moment ago
        record = await self._loader.get(check_in.device)
        if record is None:
            self._unknown(check_in.device)
            raise UnknownDevice(f"no device {check_in.device} is known here: enrol it first")
        if not _signed_by(claimed, record):
            raise BadSignature(f"expected an envelope signed by the key of {record.name}")
        if record.state == "pending":
            raise Pending(f"{record.name} waits for an operator to accept it")
        if record.state != "enrolled":
            raise Revoked(f"{record.name} is {record.state}: enrol again with a new key")
        return record

    def _reply(self, record: DeviceRecord, stored: Stored) -> bytes:
        now = self._clock()
        record.seen = now.timestamp()
        # it is written with the check-in
        record.note_after = max(record.note_after, record.seen + note_interval_s(self._settings))
        life = self._settings.token_lifetime_s
        expires = int((now + timedelta(seconds=life)).timestamp())
        return self._replies.write(
            token=self._tokens.issue(record.name, record.generation, expires=expires),
            stored=stored,
            hint=self._fleet.hint,
            push=self._push_terms(),
            now=now,
        )


def _read(raw: bytes) -> tuple[Unverified, CheckIn]:
    """Read what the envelope claims, signed or not."""
    if (steady := read_steady(raw)) is not None:
        return steady
    try:
        claimed = dsse.peek_unverified(
            raw, payload_type=CHECK_IN_TYPE, max_bytes=MAX_CHECK_IN_BYTES
        )
        return claimed, parse_check_in(claimed.payload)
    except ProtocolError as error:
        raise BadCheckIn(f"this is not a check-in: {error}") from error


def _signed_by(claimed: Unverified, record: DeviceRecord) -> bool:
    return is_signed_by(claimed, payload_type=CHECK_IN_TYPE, public=record.public_key)
