"""Push in a running server: the WebSockets, the broker where one is set, and the terms of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pilotwave_protocol.push import PushTerms
from pilotwave_server import openfiles
from pilotwave_server.context import Context
from pilotwave_server.device_api.poll import Polls
from pilotwave_server.device_api.push.broker import Broker
from pilotwave_server.device_api.push.listeners import PushListeners
from pilotwave_server.device_api.push.websocket import Door
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.hosts.heartbeat import Heartbeat

UNKNOWN = "unknown"
SILENT_PINGS = 2.5
HANDSHAKES_PER_S = 500  # in each process
CALLS_PER_S = 500
"""Devices called to poll; how many more there are says how long each of them may take."""


@dataclass
class Push:
    """The channels of one server process, a `workers.Worker`."""

    context: Context
    desks: dict[str, PushListeners] = field(default_factory=dict)
    door: Door | None = None
    broker: Broker | None = None

    def terms(self) -> PushTerms | None:
        """What devices are told of push, None where there is none."""
        settings = self.context.settings
        if not self.desks:
            return None
        listening = sum(len(desk.listeners) for desk in self.desks.values())
        return PushTerms(
            poll_interval_s=max(settings.push_poll_interval_s, settings.poll_interval_s),
            ping_s=settings.push_ping_s,
            spread_s=1 + listening // CALLS_PER_S,
        )

    @property
    def held(self) -> int:
        """How many WebSockets this process holds."""
        return 0 if self.door is None else len(self.door.sessions)

    def channel_of(self, device: str) -> str | None:
        """Which channel of a device lives, `UNKNOWN` where another process may hold it."""
        for kind, desk in self.desks.items():
            if device in desk.listeners:
                return kind
        others = self.context.get(Heartbeat).fleet.processes > 1
        return UNKNOWN if self.door is not None and others else None

    def start(self) -> None:
        for desk in self.desks.values():
            desk.start(self.context.loop)
        if self.broker is not None:
            self.broker.start(self.context.loop)

    def stop(self) -> None:
        if self.broker is not None:
            self.broker.stop()
        for desk in self.desks.values():
            desk.stop()


def install(context: Context, polls: Polls) -> Push:
    """Make what the settings ask for. Raises `BadSetting`."""
    settings, push = context.settings, Push(context)

    heartbeat = context.get(Heartbeat)

    def desk(kind: str, may_call: Callable[[], bool] = lambda: True) -> PushListeners:
        push.desks[kind] = PushListeners(
            context.get(FleetState),
            polls,
            clock=context.clock,
            rate=CALLS_PER_S,
            may_call=may_call,
        )
        return push.desks[kind]

    if settings.push_connections:
        push.door = Door(
            desk("websocket"),
            polls,
            limit=min(settings.push_connections, openfiles.for_push(openfiles.limit())),
            per_second=HANDSHAKES_PER_S,
            silent_s=settings.push_ping_s * SILENT_PINGS,
        )
    if settings.mqtt_url:
        # a device hears them all, and one call is enough
        mqtt = desk("mqtt", lambda: heartbeat.fleet.first)
        push.broker = Broker(mqtt, settings, fleet=lambda: context.get(FleetState).snapshot.fleet)
    return push
