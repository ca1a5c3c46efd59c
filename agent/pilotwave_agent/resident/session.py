"""Talk to the server for the resident agent: check in, poll, keep tokens, keep the schedule.

What it hears that needs work is handed on through `Ears`; it starts nothing itself. Tokens live in
memory only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.check_in.numbering import Sequence
from pilotwave_agent.check_in.send import News, Reporter
from pilotwave_agent.core.schedule import Schedule
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.facts import facts_of
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.identity import Identity
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import BadAnswer, Unreachable
from pilotwave_agent.net.server_api import ServerSaid, channel_of
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages import CheckInReply
from pilotwave_protocol.push import PushTerms

NO = (ServerSaid, Unreachable, BadAnswer)
_TOKEN_MARGIN_S = 5.0
_HOUR_S = 3600.0


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
        """An older server knows later events than the journal ever numbered."""
        ...


@dataclass
class Session:
    """One device's conversation with its server."""

    config: Config
    who: Identity
    seq: Sequence
    schedule: Schedule
    ears: Ears
    clock: Clock = field(default_factory=Clock)
    root: Path = Path("/")
    online: bool = True
    token: str = ""
    progress: Mapping[str, int] = field(default_factory=dict)
    trouble: tuple[str, str] | None = None
    push: PushTerms | None = None
    _token_ends: float = 0.0
    _etag_until: float = 0.0
    _etag: str = ""
    _facts: Mapping[str, Scalar] | None = None
    _said: str = ""

    def __post_init__(self) -> None:
        layout = Layout(self.config.data_dir)
        self.telemetry = Telemetry(Disk(), layout.live, layout.telemetry, self.config.app_users)
        self.channel = channel_of(self.config)
        self.reporter = Reporter(self.channel, self.who, self.seq, self.telemetry)

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
        news = News(facts if facts != self._facts else None, self.progress, self.trouble)
        already = self.reporter.acked
        try:
            reply = self.reporter.send(state, news)
        except NO as e:
            self._check_in_refused(e)
            return
        self._facts = facts if self.reporter.whole else None
        self._take(state, reply, already)

    def _take(self, state: DeviceState, reply: CheckInReply, already: int) -> None:
        now, schedule = self.clock.uptime(), self.schedule
        waiting = [e.id for e in state.events if e.id > reply.acked_event]
        # a server that acknowledges nothing new gets no second report at once
        more = bool(waiting) and reply.acked_event > already
        with contextlib.suppress(OSError):  # a full disk: they are sent and acknowledged again
            more = self.telemetry.acked(reply.acked_metric) or more
        self.token = reply.token
        self._token_ends = now + reply.token_expires_in_s - _TOKEN_MARGIN_S
        self.push = reply.push
        poll_s, check_in_s = reply.poll_interval_s, reply.check_in_interval_s
        longest = self.config.max_poll_interval_s, self.config.max_check_in_interval_s
        schedule.ask(
            poll_s=_asked(poll_s, schedule.poll_s, longest[0]),
            check_in_s=_asked(check_in_s, schedule.check_in_s, longest[1]),
        )
        schedule.checked_in(now, more=more)
        if self.reporter.lost:
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
        if now >= self._etag_until and self.ears.state().refusal:
            self._etag = ""  # what was refused may have come under the ETag of what is right
        try:
            polled = server_api.poll(self.channel, self.token, self._etag)
        except NO as e:
            self._poll_refused(e)
            return
        self.schedule.polled(now, changed=polled.raw is not None)
        if polled.raw is not None:
            self._etag_until = now + _HOUR_S
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


def _asked(wish_s: float, now_s: float, longest_s: float) -> float:
    """Return the interval that an answer brings: at most an hour or twice the present one, so that
    a single forged answer does not silence the device for a day."""
    return min(wish_s, longest_s, max(_HOUR_S, 2 * now_s))
