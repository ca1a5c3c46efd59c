"""The devices' part of a running server: the fleet in memory, the hot paths, background work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.types import ASGIApp

from pilotwave_server.context import Context
from pilotwave_server.device_api import enrolment, links
from pilotwave_server.device_api.challenges import DeviceChallenges
from pilotwave_server.device_api.check_in import CheckIns
from pilotwave_server.device_api.front import DevicePaths
from pilotwave_server.device_api.ingest import Ingest
from pilotwave_server.device_api.poll import Polls
from pilotwave_server.device_api.push.setup import Push
from pilotwave_server.device_api.push.setup import install as make_push
from pilotwave_server.device_api.tokens import DeviceTokens
from pilotwave_server.device_api.writer import CheckInWriter
from pilotwave_server.devices import routes as devices
from pilotwave_server.fleet.last_seen import FLUSH_S, LastSeen, note_interval_s
from pilotwave_server.fleet.leases import INTERVAL_S, FleetLeases
from pilotwave_server.fleet.loader import Loader
from pilotwave_server.fleet.preload import Preload
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.groups import routes as groups
from pilotwave_server.recovery.worker import Recovery
from pilotwave_server.rollouts.assignments import routes as rollouts
from pilotwave_server.rollouts.bulk import routes as bulk_routes
from pilotwave_server.rollouts.engine.engine import Engine
from pilotwave_server.rollouts.operate import routes as rollout_routes
from pilotwave_server.rollouts.policies import routes as policies
from pilotwave_server.rollouts.removals import routes as removal_routes
from pilotwave_server.workers import Periodic

routers: list[APIRouter] = [
    enrolment.router,
    links.router,
    devices.router,
    groups.router,
    *rollouts.routers,
    bulk_routes.router,
    rollout_routes.router,
    *removal_routes.routers,
    policies.router,
]
TOKEN_KEYS = "device-tokens.json"
WATCH_S = 0.5


@dataclass(frozen=True)
class DeviceApi:
    """The handlers of the hot paths."""

    polls: Polls
    check_ins: CheckIns
    push: Push

    @property
    def websockets(self) -> Any:
        """What makes the WebSockets' protocol objects (uvicorn's `ws`)."""
        return self.push.door or "none"

    def in_front_of(self, app: ASGIApp) -> ASGIApp:
        """Return an app that answers devices here and passes everything else on."""
        return DevicePaths(app, polls=self.polls, check_ins=self.check_ins)


def install(context: Context) -> DeviceApi:
    """Put the fleet into the context and let it start and stop with the server.

    The registry's trust store and the desk of downloads must be in the context already.
    """
    settings, db, clock = context.settings, context.db, context.clock
    fleet = FleetState(db, context.trust)
    tokens = DeviceTokens(settings.keys_dir / TOKEN_KEYS)
    loader = Loader(fleet.load)
    seen = LastSeen(db, fleet, note_s=note_interval_s(settings))
    desk = FleetLeases(db, fleet, clock)
    engine = Engine(db, fleet, clock, check_in_s=settings.check_in_interval_s)
    rollouts_worker = engine.worker()

    ingest = Ingest(
        db,
        fleet,
        clock,
        challenges=DeviceChallenges(tokens, clock),
        check_in_s=settings.check_in_interval_s,
        wake=rollouts_worker.wake,
    )
    writer = CheckInWriter(ingest)
    polls = Polls(
        fleet,
        loader,
        tokens,
        director=context.trust,
        clock=clock,
        metrics=context.metrics,
        lifetime_s=settings.directive_lifetime_s,
        note_seen=seen.note,
        note_s=seen.note_s,
        ask_lease=desk.ask,
        downloads=context.downloads,
        pacing=context.pacing,
    )
    context.fleet, context.tokens, context.checkins = fleet, tokens, writer
    push = make_push(context, polls)
    recovery = Recovery(db, context.trust, clock)
    check_ins = CheckIns(
        fleet,
        loader,
        writer,
        tokens,
        settings=settings,
        clock=clock,
        metrics=context.metrics,
        push_terms=push.terms,
        pacing=context.pacing,
        heard=lambda check_in, seq: recovery.heard(check_in, seq, fleet.hint),
    )
    context.blob_gates.append(polls.may_read)
    # what is changed here shows at the very next poll; what others change, at the next look
    db.on_revision += [fleet.refresh, rollouts_worker.wake]
    context.workers += [
        Watcher(fleet),
        Preload(db, fleet),
        writer,
        recovery,
        rollouts_worker,
        Periodic("leases", desk.work, interval_s=INTERVAL_S),
        Periodic("last-seen", seen.flush, interval_s=FLUSH_S, at_stop=True, can_wait=True),
        push,
    ]
    device_api = DeviceApi(polls, check_ins, push)
    context.devices = device_api
    return device_api


class Watcher:
    """Looks for changes that other processes made. Its first look is over when it has started."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._again = Periodic("fleet", fleet.refresh, interval_s=WATCH_S)

    def start(self) -> None:
        self._fleet.refresh()
        self._again.start()

    def stop(self) -> None:
        self._again.stop()
