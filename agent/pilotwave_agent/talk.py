"""Talk to the server for the resident agent: check in, poll, keep tokens, keep the schedule.

What it hears that needs work is handed on through `Ears`; it starts nothing itself. Tokens live in
memory only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pilotwave_agent import client
from pilotwave_agent.channel import BadAnswer, Unreachable
from pilotwave_agent.client import ServerSaid, channel_of
from pilotwave_agent.clock import Clock
from pilotwave_agent.config import Config
from pilotwave_agent.disk import Disk
from pilotwave_agent.facts import agent_version, facts_of
from pilotwave_agent.identity import Identity, Sequence
from pilotwave_agent.log import say
from pilotwave_agent.report import check_in_of
from pilotwave_agent.schedule import Schedule
from pilotwave_agent.slots import Layout
from pilotwave_agent.state import DeviceState
from pilotwave_agent.telemetry import Telemetry
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages import SMALL_CHECK_IN_BYTES, CheckInReply
from pilotwave_protocol.push import PushTerms

NO = (ServerSaid, Unreachable, BadAnswer)
_TOKEN_MARGIN_S = 5.0
_STALE_TRIES = 3


class Ears(Protocol):
    """What the resident agent does with what the server says."""

    def state(self) -> DeviceState:
        """Return what the journal says now."""
        ...

    def directive(self, raw: bytes) -> bool:
        """Take a directive in; False if it could not be kept."""
        ...

    def hint(self, root: int, timestamp: int) -> None:
        """Hear of the newest TUF versions."""
        ...

    def answered(self) -> None:
        """The server answers."""
        ...

    def renumber(self) -> None:
        """The server knows later events than the journal ever numbered."""
        ...


@dataclass
class Talk:
    """One device's conversation with its server."""

    config: Config
    who: Identity
    seq: Sequence
    schedule: Schedule
    ears: Ears
    clock: Clock = field(default_factory=Clock)
    root: Path = Path("/")
    online: bool = True
    acked: int = 0
    token: str = ""
    progress: Mapping[str, int] = field(default_factory=dict)
    trouble: tuple[str, str] | None = None
    push: PushTerms | None = None
    _token_ends: float = 0.0
    _told: int = 0
    _max_bytes: int = SMALL_CHECK_IN_BYTES
    _cut: bool = False  # something on the way takes less than the server said
    _etag: str = ""
    _facts: Mapping[str, Scalar] | None = None
    _said: str = ""

    def __post_init__(self) -> None:
        layout = Layout(self.config.data_dir)
        self.telemetry = Telemetry(Disk(), layout.live, layout.telemetry, self.config.app_users)
        self.channel = channel_of(self.config)

    def say_once(self, words: str) -> None:
        """Tell of a trouble, but not each time it comes again."""
        if words != self._said:
            say(words, level="warning")
        self._said = words

    # --- checking in

    def check_in(self) -> None:
        """Send a report; with the answer come a token, intervals and a hint."""
        facts = facts_of(self.config, root=self.root)
        state = self.ears.state()
        self.telemetry.collect(self.clock.wall())
        try:
            reply = self._send(state, facts if facts != self._facts else None)
        except NO as e:
            self._check_in_refused(e)
            return
        self._facts = facts
        self._take(state, reply)

    def _send(self, state: DeviceState, facts: Mapping[str, Scalar] | None) -> CheckInReply:
        unacked = tuple(e for e in state.events if e.id > self.acked)
        state = replace(state, events=unacked)
        tries = 0
        while True:
            report = check_in_of(
                state,
                fleet=self.who.fleet,
                device=self.who.device,
                seq=self.seq.take(),
                agent=agent_version(),
                facts=facts,
                progress=self.progress,
                trouble=self.trouble,
                metrics=self.telemetry.pending(),
                max_bytes=self._max_bytes,
            )
            kept = self.channel.kept
            try:
                reply = client.check_in(self.channel, self.who.key, report)
                self._told = max([self._told, *(e.id for e in report.events)])
                return reply
            except ServerSaid as e:
                tries += 1
                if e.problem != "stale_seq" or e.last_seq is None or tries >= _STALE_TRIES:
                    raise
                self.seq.jump(e.last_seq)
            except Unreachable:
                # what lies between may have forgotten the connection; what did arrive, and comes
                # again with the next number, is counted once
                if not kept:
                    raise

    def _take(self, state: DeviceState, reply: CheckInReply) -> None:
        now, schedule = self.clock.uptime(), self.schedule
        if self._told < reply.acked_event < state.next_event:
            # no server has an event that it was never told: the answer was damaged on its way
            reply = replace(reply, acked_event=max(self._told, self.acked))
        waiting = [e.id for e in state.events if e.id > reply.acked_event]
        # a server that acknowledges nothing new gets no second report at once
        more = bool(waiting) and reply.acked_event > self.acked
        with contextlib.suppress(OSError):  # a full disk: they are sent and acknowledged again
            more = self.telemetry.acked(reply.acked_metric) or more
        self.acked = max(self.acked, reply.acked_event)
        self.token = reply.token
        self._token_ends = now + reply.token_expires_in_s - _TOKEN_MARGIN_S
        self.push = reply.push
        if not self._cut:
            self._max_bytes = reply.max_check_in_bytes
        schedule.ask(
            poll_s=min(reply.poll_interval_s, self.config.max_poll_interval_s),
            check_in_s=min(reply.check_in_interval_s, self.config.max_check_in_interval_s),
        )
        schedule.checked_in(now, more=more)
        if reply.acked_event >= state.next_event:
            self.ears.renumber()
        self._heard()
        self.ears.hint(reply.tuf.get("root", 0), reply.tuf.get("timestamp", 0))

    def _check_in_refused(self, e: Exception) -> None:
        now = self.clock.uptime()
        if not isinstance(e, ServerSaid):
            self._lost(e)
            self.schedule.check_in_failed(now)
            return
        wait = e.retry_after_s or 0.0
        if e.status == 413:
            self._max_bytes, self._cut = SMALL_CHECK_IN_BYTES, True
        if e.status in (401, 403):
            # this device is not accepted yet, or not any more: knocking harder helps nobody
            wait = max(wait, self.schedule.spread(self.schedule.poll_s))
        pending = e.problem == "pending"
        self._lost(e, "waiting for an operator to accept this device" if pending else "")
        self.schedule.check_in_failed(now, wait)
        if pending:
            self.schedule.check_in_backoff.reset()

    # --- polling

    def poll(self) -> None:
        """Ask whether there is another directive."""
        now = self.clock.uptime()
        if not self.token or now >= self._token_ends:
            self.schedule.need_token(now)
            return
        try:
            polled = client.poll(self.channel, self.token, self._etag)
        except NO as e:
            self._poll_refused(e)
            return
        self.schedule.polled(now, changed=polled.raw is not None)
        self._etag = polled.etag
        if polled.raw is not None and not self.ears.directive(polled.raw):
            self._etag = ""  # so that the server offers it again
        self._heard()
        self.ears.hint(polled.root, polled.timestamp)

    def forget_directive(self) -> None:
        """Have the directive offered again: the one that came is not what was sent."""
        self._etag = ""

    def _poll_refused(self, e: Exception) -> None:
        now = self.clock.uptime()
        if isinstance(e, ServerSaid) and e.status == 401:
            self.lose_token()
            return
        self._lost(e)
        after_s = e.retry_after_s if isinstance(e, ServerSaid) else None
        self.schedule.poll_failed(now, after_s or 0.0)

    def lose_token(self) -> None:
        """The token is good no more: check in for another."""
        self.token = ""
        self.schedule.need_token(self.clock.uptime())

    # --- being online

    def _heard(self) -> None:
        if not self.online:
            say("the server answers again")
        self.online, self._said = True, ""
        self.ears.answered()

    def _lost(self, e: Exception, words: str = "") -> None:
        self.online = isinstance(e, ServerSaid)
        self.say_once(words or str(e))
