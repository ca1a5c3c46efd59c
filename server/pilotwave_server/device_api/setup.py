"""The devices' own routes in a running server: the hot paths, enrolment, links, push."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_server.blobs.flow import BlobGates
from pilotwave_server.context import Context
from pilotwave_server.device_api import enrolment, learning, links, sealed_routes
from pilotwave_server.device_api.challenges import DeviceChallenges
from pilotwave_server.device_api.check_in import CheckIns
from pilotwave_server.device_api.front import CHECK_IN, POLL, DevicePaths
from pilotwave_server.device_api.ingest import Ingest
from pilotwave_server.device_api.poll import Polls
from pilotwave_server.device_api.push.setup import Push
from pilotwave_server.device_api.push.setup import install as make_push
from pilotwave_server.device_api.sealed import Doors, make_doors
from pilotwave_server.device_api.tokens import DeviceTokens
from pilotwave_server.device_api.traces import DeviceTraces
from pilotwave_server.device_api.writer import CheckInWriter
from pilotwave_server.devices.presence import PushChannels
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.fleet.last_seen import LastSeen
from pilotwave_server.fleet.leases import FleetLeases
from pilotwave_server.fleet.loader import Loader
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.recovery.worker import Recovery
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.rollouts.engine.engine import EngineWorker
from pilotwave_server.tracing import Tracing
from pilotwave_server.workers import Periodic

TOKEN_KEYS_S = 5.0
"""How often the keys of tokens are read again: whoever changed them cannot tell each process."""


@dataclass(frozen=True)
class DeviceApi:
    """The handlers of the hot paths."""

    polls: Polls
    check_ins: CheckIns
    doors: Doors
    push: Push

    @property
    def websockets(self) -> Any:
        """What makes the WebSockets' protocol objects (uvicorn's `ws`)."""
        return self.push.door or "none"

    def in_front_of(self, app: ASGIApp) -> ASGIApp:
        """Return an app that answers devices here and passes everything else on."""
        return DevicePaths(
            app,
            {
                ("GET", POLL): self.polls,
                ("POST", CHECK_IN): self.check_ins,
                **{("POST", path): door for path, door in self.doors.items()},
            },
        )


def install(context: Context) -> None:
    """Answer devices, and write what they report until the server's end."""
    tokens = DeviceTokens(context.keys)
    reread = Periodic("token-keys", tokens.reread, interval_s=TOKEN_KEYS_S)
    tokens.on_unknown = reread.wake
    writer = CheckInWriter(make_ingest(context, tokens))
    spans = context.get(Tracing).spans
    traces = None if spans is None else DeviceTraces(spans)
    polls = make_polls(context, tokens, traces)
    push = make_push(context, polls)
    check_ins = make_check_ins(context, tokens, writer, push, traces)
    doors = make_doors(context, polls)
    api = DeviceApi(polls, check_ins, doors, push)
    for part in (polls, check_ins, push, doors, api):
        context.put(part)
    context.put(PushChannels(push.channel_of))
    context.get(BlobGates).append(polls.may_read)
    context.routers += [enrolment.router, sealed_routes.router, learning.router, links.router]
    context.workers += [reread, writer, push]


def make_ingest(context: Context, tokens: DeviceTokens) -> Ingest:
    return Ingest(
        context.db,
        context.get(FleetState),
        context.clock,
        challenges=DeviceChallenges(tokens, context.clock),
        counting=context.get(Admission).counting,
        check_in_s=context.settings.check_in_interval_s,
        wake=context.get(EngineWorker).wake,
    )


def make_polls(context: Context, tokens: DeviceTokens, traces: DeviceTraces | None) -> Polls:
    seen, heartbeat = context.get(LastSeen), context.get(Heartbeat)

    def note(record: DeviceRecord) -> None:
        heartbeat.heard()
        seen.note(record)

    return Polls(
        context.get(FleetState),
        context.get(Loader),
        tokens,
        director=context.get(TrustStore),
        clock=context.clock,
        metrics=context.metrics,
        lifetime_s=context.settings.directive_lifetime_s,
        note_seen=note,
        note_s=seen.note_s,
        ask_lease=context.get(FleetLeases).ask,
        downloads=context.get(Admission),
        pacing=context.pacing,
        traces=traces,
    )


def make_check_ins(
    context: Context,
    tokens: DeviceTokens,
    writer: CheckInWriter,
    push: Push,
    traces: DeviceTraces | None,
) -> CheckIns:
    fleet, recovery = context.get(FleetState), context.get(Recovery)
    heartbeat = context.get(Heartbeat)

    def heard(check_in: CheckIn, seq: int) -> None:
        heartbeat.heard()
        recovery.heard(check_in, seq, fleet.hint)

    return CheckIns(
        fleet,
        context.get(Loader),
        writer,
        tokens,
        settings=context.settings,
        clock=context.clock,
        metrics=context.metrics,
        push_terms=push.terms,
        pacing=context.pacing,
        heard=heard,
        unknown=recovery.unknown,
        traces=traces,
    )
