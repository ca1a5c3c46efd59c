"""Talk to the server: check in, poll, keep tokens, keep the schedule.

What is heard that needs work is returned as `Heard`; nothing is started here. Tokens live in memory
only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave_agent.apps.shadow_said import shadows_said
from pilotwave_agent.check_in.drift import Alarm, DriftWatch
from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.check_in.numbering import Sequence
from pilotwave_agent.check_in.send import News, Reporter
from pilotwave_agent.core.schedule import PROFILES, Schedule
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
from pilotwave_protocol.messages.check_in_reply import CheckInReply
from pilotwave_protocol.messages.diagnostics import DiagnosticsWish
from pilotwave_protocol.push import PushTerms

if TYPE_CHECKING:
    from pilotwave_agent.adapting import Adapter
    from pilotwave_agent.captures import Captures
    from pilotwave_agent.rounds import Rounds
    from pilotwave_agent.traces import DeviceTraces

NO = (ServerSaid, Unreachable, BadAnswer)
_TOKEN_MARGIN_S = 5.0
_HOUR_S = 3600.0
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Heard:
    """What an answer brought: another directive, the newest versions of root and timestamp (a hint
    only), and whether an older server knows later events than the journal ever numbered."""

    directive: bytes | None = None
    tuf: tuple[int, int] = (0, 0)
    renumber: bool = False


def _warn(words: str) -> None:
    say(words, level="warning")


@dataclass
class Session:
    """One device's conversation with its server. `said` is the trouble that was last told of, by
    `warn`; an answer clears it."""

    config: Config
    who: Identity
    seq: Sequence
    schedule: Schedule
    clock: Clock = field(default_factory=Clock)
    root: Path = Path("/")
    warn: Callable[[str], None] = _warn
    online: bool = True
    token: str = ""
    push: PushTerms | None = None
    said: str = ""
    _token_ends: float = 0.0
    _token_served: bool = False
    _etag_until: float = 0.0
    _etag: str = ""
    _facts: Mapping[str, Scalar] | None = None
    _answered: dict[int, float] = field(default_factory=dict)
    _telling: tuple[Alarm, ...] = ()
    traces: DeviceTraces | None = None
    config_path: Path | None = None

    def __post_init__(self) -> None:
        layout = Layout(self.config.data_dir)
        self.drift = DriftWatch(Disk(), layout.root, layout.drift)
        self.telemetry = Telemetry(
            Disk(), layout.live, layout.telemetry, self.config.app_users, self.drift
        )
        self.channel = channel_of(self.config)
        self.reporter = Reporter(self.channel, self.who, self.seq, self.telemetry)
        self.captures: Captures | None = None
        if self.config.capture.reader:
            from pilotwave_agent.captures import Captures  # mostly not asked for

            self.captures = Captures(self.config, self.who, Disk())
        self.rounds: Rounds | None = None
        if self.config.learn.allow and self.config_path is not None:
            from pilotwave_agent.rounds import Rounds  # mostly not allowed

            self.rounds = Rounds(self.config, self.config_path, Disk())
        self.adapter: Adapter | None = None
        if self.config.learn.adapt and self.config_path is not None:
            from pilotwave_agent.adapting import Adapter  # mostly not allowed

            self.adapter = Adapter(self.config, self.config_path, Disk())

    def say_once(self, words: str) -> None:
        """Tell of a trouble, but not each time it comes again."""
        if words != self.said:
            self.warn(words)
        self.said = words

    def job(self) -> dict[str, Any]:
        """Return what a process that works is told of the conversation."""
        reporter = self.reporter
        job: dict[str, Any] = {
            "token": self.token,
            "acked": reporter.acked,
            "journal": reporter.journal,
        }
        if self.drift.alarms:
            self._telling = self.drift.alarms
            job["drifts"] = [vars(alarm) for alarm in self._telling]
        return job if self.traces is None else {**job, "traced": self.traces.models}

    def worked(self) -> None:
        """Forget what the process that has worked wrote into the journal."""
        telling, self._telling = self._telling, ()
        with contextlib.suppress(OSError):  # a full disk: it is told twice
            self.drift.told(telling)

    def close(self) -> None:
        """Close the connection, send what is left of traces, end what takes part in learning."""
        self.channel.close()
        if self.rounds:
            self.rounds.close()
        if self.adapter:
            self.adapter.close()
        if self.traces:
            self.traces.close()

    # --- checking in

    def check_in(
        self,
        state: DeviceState,
        progress: Mapping[str, int] | None = None,
        trouble: tuple[str, str] | None = None,
    ) -> Heard | None:
        """Send a report; with the answer come a token, intervals and a hint. None: no answer."""
        facts = facts_of(self.config, root=self.root)
        self.telemetry.collect(self.clock.wall())
        if self.captures:
            self.captures.collect(self.clock.wall())
            self.captures.tell_drift(self.drift.drifting(self.clock.wall()))
        if self.rounds:
            self.rounds.collect()
        if self.adapter:
            self.adapter.look(state, wall=self.clock.wall(), root=self.root)
        traces = self.traces.header() if self.traces else ""
        live = Layout(self.config.data_dir).live
        shadows = shadows_said(live, state, self.config.app_users)
        told = facts if facts != self._facts else None
        news = News(told, progress or {}, trouble, traces, shadows)
        already = self.reporter.acked
        try:
            reply = self.reporter.send(state, news)
        except NO as e:
            self._check_in_refused(e)
            return None
        self._facts = facts if self.reporter.whole else None
        if self.traces:
            self.traces.reported()
        self._take(state, reply, already)
        if reply.diagnostics is not None:
            self._answer(reply.diagnostics, state)
        if self.captures:
            now, wall = self.clock.uptime(), self.clock.wall()
            self.captures.send(self.channel, self.token, now=now, wall=wall, root=self.root)
        if self.rounds:
            self.rounds.look(self.channel, self.token, wall=self.clock.wall(), root=self.root)
        if self.adapter:
            self.adapter.fetch_plans(self.channel, self.token)
        tuf = reply.tuf.get("root", 0), reply.tuf.get("timestamp", 0)
        return Heard(tuf=tuf, renumber=self.reporter.lost)

    def _take(self, state: DeviceState, reply: CheckInReply, already: int) -> None:
        now, schedule = self.clock.uptime(), self.schedule
        waiting = [e.id for e in state.events if e.id > reply.acked_event]
        # a server that acknowledges nothing new gets no second report at once
        more = bool(waiting) and reply.acked_event > already
        with contextlib.suppress(OSError):  # a full disk: they are sent and acknowledged again
            more = self.telemetry.acked(reply.acked_metric) or more
        self.token, self._token_served = reply.token, False
        self._token_ends = now + reply.token_expires_in_s - _TOKEN_MARGIN_S
        self.push = reply.push
        poll_s, check_in_s = reply.poll_interval_s, reply.check_in_interval_s
        longest = self.config.max_poll_interval_s, self.config.max_check_in_interval_s
        schedule.ask(
            poll_s=_asked(poll_s, schedule.poll_s, longest[0]),
            check_in_s=_asked(check_in_s, schedule.check_in_s, longest[1]),
        )
        schedule.checked_in(now, more=more)
        self._heard()

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

    def _answer(self, wish: DiagnosticsWish, state: DeviceState) -> None:
        """Send diagnostics, each once, and no more a day than the owner allows."""
        now = self.clock.uptime()
        self._answered = {i: at for i, at in self._answered.items() if now - at < _DAY_S}
        if wish.id in self._answered or len(self._answered) >= self.config.diagnostics.per_day:
            return
        from pilotwave_agent.diagnostics import answer_to  # seldom needed

        fleet = self.reporter.fleet
        envelope = answer_to(wish, self.config, self.who, state, fleet=fleet, root=self.root)
        try:
            server_api.send_diagnostics(self.channel, self.token, envelope)
        except ServerSaid as e:
            self.say_once(str(e))
        except (Unreachable, BadAnswer):
            return  # the next check-in's answer asks again
        self._answered[wish.id] = now

    # --- polling

    def poll(self, state: DeviceState) -> Heard | None:
        """Ask whether there is another directive. None: no answer."""
        now = self.clock.uptime()
        if not self.token or now >= self._token_ends:
            self.schedule.need_token(now)
            return None
        if now >= self._etag_until and state.refusal:
            self._etag = ""  # what was refused may have come under the ETag of what is right
        try:
            polled = server_api.poll(self.channel, self.token, self._etag)
        except NO as e:
            self._poll_refused(e)
            return None
        self._token_served = True
        self.schedule.polled(now, changed=polled.raw is not None)
        if polled.raw is not None and self.traces:
            self.traces.ordered(polled.traces)
        if polled.raw is not None:
            self._etag_until = now + _HOUR_S
        self._etag = polled.etag
        self._heard()
        return Heard(polled.raw, (polled.root, polled.timestamp))

    def forget_directive(self) -> None:
        """Have the directive offered again: it could not be kept, or is not what was sent."""
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
        self.token, now = "", self.clock.uptime()
        if self._token_served:
            self.schedule.need_token(now)
        else:
            self.schedule.token_refused(now)

    # --- being online

    def _heard(self) -> None:
        if not self.online:
            say("the server answers again")
        self.online, self.said = True, ""

    def _lost(self, e: Exception, words: str = "") -> None:
        self.online = isinstance(e, ServerSaid)
        self.say_once(words or str(e))


def _asked(wish_s: float, now_s: float, longest_s: float) -> float:
    """Return the interval that an answer brings: at most an hour or twice the present one, so that
    a single forged answer does not silence the device for a day."""
    return min(wish_s, longest_s, max(_HOUR_S, 2 * now_s))


def session_of(
    config: Config, who: Identity, clock: Clock | None = None, root: Path = Path("/"), **more: Any
) -> Session:
    """Begin a device's conversation; `root` stands in for `/` where the device is described."""
    schedule = Schedule(
        poll_s=min(who.poll_interval_s, config.max_poll_interval_s),
        check_in_s=min(who.check_in_interval_s, config.max_check_in_interval_s),
        profile=PROFILES[config.profile],
    )
    seq = Sequence(Disk(), Layout(config.data_dir).seq)
    traces = None
    if config.tracing.endpoint:
        from pilotwave_agent.traces import traces_of  # mostly not asked for

        traces = traces_of(config, Disk())
    return Session(config, who, seq, schedule, clock or Clock(), root, traces=traces, **more)


def keep_directive(disk: Disk, layout: Layout, raw: bytes) -> bool:
    """Put a directive into the inbox, unverified; say whether it is another than lay there."""
    if disk.size(layout.inbox) == len(raw) and disk.read(layout.inbox) == raw:
        return False
    disk.make_dirs(layout.inbox.parent)
    disk.write_atomic(layout.inbox, raw)
    return True
