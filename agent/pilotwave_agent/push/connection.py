"""Keep a channel open: open it, listen, find out that it is dead, open it again.

What it hears only moves the schedule. While the channel lives, polls are as far apart as the server
wants for that; when it dies they are as close as without one, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from pilotwave_agent.core.schedule import NEVER, Schedule
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.host.log import say
from pilotwave_agent.identity import Identity
from pilotwave_agent.net.server_api import client_cert_of
from pilotwave_agent.push.channel import Lost, PushChannel
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.push import PushTerms, within_of

LAST_RETRY_S = 300.0
STEADY_S = 60.0  # a channel that lived for less counts as one that could not be opened
LEAST_PING_S = 15
MOST_CLOSER = 16
FLOOD = 300  # calls
FLOOD_S = 60.0
WHY_NOT = "this device is not called, and polls: "

Opener = Callable[[str, PushTerms], PushChannel]


class Talking(Protocol):
    """What a connection needs of `session.Session`."""

    token: str
    online: bool
    push: PushTerms | None

    def lose_token(self) -> None:
        """The token is good no more."""


class PushConnection:
    """The one channel of a device. `turn` is called whenever the agent is awake."""

    def __init__(
        self,
        opener: Opener | None,
        schedule: Schedule,
        clock: Clock,
        *,
        longest_s: float = 86_400.0,
    ) -> None:
        """`opener` is None where the settings ask for no channel; polls are never further apart
        than `longest_s`."""
        self.line: PushChannel | None = None
        self._opener, self._schedule, self._clock = opener, schedule, clock
        self._longest_s = longest_s
        self._lives = False
        self._retry_at = self._tend_at = 0.0
        self._failures = 0
        self._closer = 0  # how often the time between pings was halved
        self._lived_at = NEVER
        self._said = ""
        self._flood = (0.0, 0)

    def due(self, talk: Talking) -> float:
        """Return when `turn` is to be called at the latest."""
        if self.line is not None:
            return self._tend_at
        return self._retry_at if self._wanted(talk) else NEVER

    def _wanted(self, talk: Talking) -> bool:
        return bool(self._opener and talk.token and talk.online and talk.push)

    def turn(self, talk: Talking) -> None:
        """Do what is due: listen, ping, or try to open the channel."""
        now = self._clock.uptime()
        try:
            if self.line is None and self._wanted(talk) and now >= self._retry_at:
                self._open(talk)
            if self.line is not None:
                self._listen(self.line, talk)
        except Lost as e:
            self._lose(e, talk)

    def _open(self, talk: Talking) -> None:
        assert self._opener is not None
        assert talk.push is not None
        # until then another try would be too early, however this one ends
        self._retry_at = self._clock.uptime() + self._wait_s(talk.push)
        ping_s = max(talk.push.ping_s >> self._closer, min(LEAST_PING_S, talk.push.ping_s))
        self.line = self._opener(talk.token, replace(talk.push, ping_s=ping_s))

    def _wait_s(self, terms: PushTerms) -> float:
        """Full jitter, as a whole fleet may have been cut off at one moment."""
        bound = max(terms.spread_s, 1) * float(1 << min(self._failures, 20))
        return self._schedule.chance.uniform(0.0, min(bound, max(LAST_RETRY_S, terms.spread_s)))

    def _listen(self, line: PushChannel, talk: Talking) -> None:
        now = self._clock.uptime()
        for call in line.hear(now):
            within_s = within_of(call)
            if within_s is not None:
                self._count(now)
                self._schedule.called(now, within_s)
        self._tend_at = line.tend(now)
        if line.alive != self._lives and talk.push is not None:
            self._lives = line.alive
            if self._lives:
                self._begin(now, talk.push)
            else:
                self._schedule.shrunk(now)

    def _begin(self, now: float, terms: PushTerms) -> None:
        self._said = ""
        self._schedule.stretched(min(terms.poll_interval_s, self._longest_s))
        if self._lived_at < NEVER:  # what changed while nobody could call
            self._schedule.called(now, float(terms.spread_s))
        self._lived_at = now
        say("this device is called when there is something for it")

    def _count(self, now: float) -> None:
        since, calls = self._flood
        self._flood = (since, calls + 1) if now - since < FLOOD_S else (now, 1)
        if self._flood[1] > FLOOD:
            raise Lost(f"more than {FLOOD} calls within {FLOOD_S:g} s", after_s=LAST_RETRY_S)

    def _lose(self, e: Lost, talk: Talking) -> None:
        now = self._clock.uptime()
        if self.line is not None:
            self.line.close()
        self.line = None
        if self._lives:
            self._lives = False
            self._schedule.shrunk(now)
            if now - self._lived_at > STEADY_S:
                self._failures = 0
        if talk.push is not None:
            self._retry_at = now + max(self._wait_s(talk.push), e.after_s)
        self._failures += 1
        # a path that forgets idle connections, like a NAT: have it see something more often
        self._closer = min(self._closer + e.silent, MOST_CLOSER)
        if str(e) != self._said:
            say(f"{WHY_NOT}{e}", level="warning")
        self._said = str(e)
        if e.bad_token:
            talk.lose_token()

    def close(self) -> None:
        """Close the channel."""
        if self.line is not None:
            self.line.close()
        self.line = None


def opener_of(config: Config, who: Identity) -> Opener | None:
    """Return what opens the channel of the settings, None for none or where its library lacks."""
    settings, timeout_s = config.push, config.network_timeout_s
    try:
        if settings.channel == "websocket":
            from pilotwave_agent.push.websocket import WebSocketChannel

            return lambda token, terms: WebSocketChannel(
                config.server,
                token,
                ca_file=config.ca_file,
                client=client_cert_of(config),
                timeout_s=timeout_s,
                ping_s=terms.ping_s,
                proxies=config.proxies,
            )
        if settings.channel == "mqtt":
            from pilotwave_agent.push.mqtt import MqttChannel

            return lambda token, terms: MqttChannel(
                settings, who.fleet, who.device, timeout_s=timeout_s, ping_s=terms.ping_s
            )
    except ImportError as e:
        say(
            f"{WHY_NOT}{e.name} is not installed: pip install 'pilotwave[{settings.channel}]'",
            level="warning",
        )
    return None
