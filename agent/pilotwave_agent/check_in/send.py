"""Send a device's reports and agree with the server on numbers, whatever it answers.

An answer is not signed, so none moves a number that is kept: what is acknowledged is at most what
this process sent, and a server that knows other numbers gets the report again under a new name,
with the challenge from its answer inside what is signed (docs/protocol.md, section 4). Only an
older server, which knows of no names, is followed, and no further than `numbering.may_jump`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pilotwave_agent.check_in.build import Spare, check_in_of
from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.check_in.numbering import Sequence, may_jump, name_of
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.facts import agent_version
from pilotwave_agent.identity import Identity
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import Channel, Unreachable
from pilotwave_agent.net.server_api import ServerSaid
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.check_in import SMALL_CHECK_IN_BYTES, CheckIn
from pilotwave_protocol.messages.check_in_reply import NUMBERING, CheckInReply

_TRIES = 6


@dataclass(frozen=True)
class News:
    """What a report says beside the journal's state; `facts` are None if they are as before.
    `traces` is said beside it, unsigned; `shadows`: what keeps versions in shadow from being
    compared, by model."""

    facts: Mapping[str, Scalar] | None = None
    progress: Mapping[str, int] = field(default_factory=dict)
    trouble: tuple[str, str] | None = None
    traces: str = ""
    shadows: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Try:
    """How the next try of one report is made. `asks`: it only finds out whether the server reads
    names, and what is counted is sent after it: under no name it could be taken for what came
    before it."""

    named: bool
    count: int = 0
    challenge: str | None = None
    spare: Spare = Spare.NOTHING
    again: bool = False
    asks: bool = False


class Reporter:
    """One process's reports. `acked` is the newest event that the server has, in the count of the
    journal called `journal`; `lost` whether an older server has later events than it ever told;
    `whole` whether the last report had all its parts. `fleet` is the name that reports say."""

    def __init__(
        self, channel: Channel, who: Identity, seq: Sequence, telemetry: Telemetry
    ) -> None:
        self._channel, self._who = channel, who
        self._seq, self._telemetry = seq, telemetry
        # as enrolment answered, until a registry names another: the name in a report keeps it from
        # being taken elsewhere, and directives are held against the signed one
        self.fleet = who.fleet
        self._boot = secrets.token_hex(8)
        self.acked, self.journal, self.lost, self.whole = 0, "", False, True
        self._met = seq.named
        self._max_bytes = SMALL_CHECK_IN_BYTES
        self._cut = False  # something on the way takes less than the server said
        self._told = self._told_metric = 0

    def send(self, state: DeviceState, news: News) -> CheckInReply:
        """Report; the numbers in the answer that comes back may be believed.

        Raises `ServerSaid`, `Unreachable`, `BadAnswer`.
        """
        self._follow(state)
        unacked = tuple(e for e in state.events if e.id > self.acked)
        state, next_event = replace(state, events=unacked), state.next_event
        counted = bool(unacked or self._telemetry.pending())
        this = _Try(self._seq.named, asks=counted and not self._met)
        while True:
            report = self._report(state, news, this)
            kept = self._channel.kept
            try:
                reply = server_api.check_in(
                    self._channel, self._who.key, report, traces=news.traces
                )
            except ServerSaid as e:
                this.count += 1
                if this.count >= _TRIES or not self._other(e, this):
                    raise
                continue
            except Unreachable:
                # what lies between may have forgotten the connection; what did arrive, and comes
                # again with the next number, is counted once
                this.count += 1
                if this.count >= _TRIES or not kept:
                    raise
                continue
            self._met = True
            if not self._cut:
                self._max_bytes = reply.max_check_in_bytes
            self._seq.note(named=NUMBERING in reply.accepts)
            if this.asks:
                this = _Try(self._seq.named)
                continue
            self.whole = this.spare is Spare.NOTHING
            return self._believed(reply, next_event)

    def _follow(self, state: DeviceState) -> None:
        """A journal that was lost, or began anew, counts from 1: nothing of it is acknowledged."""
        other = self.journal and state.numbering != self.journal
        if other or state.next_event <= self.acked:
            self.acked = self._told = 0
        self.journal = state.numbering

    def _report(self, state: DeviceState, news: News, this: _Try) -> CheckIn:
        seq = self._seq.take()
        counts = (self._seq.name, state.numbering, self._telemetry.numbering)
        report = check_in_of(
            replace(state, events=()) if this.asks else state,
            fleet=self.fleet,
            device=self._who.device,
            seq=seq,
            agent=agent_version(),
            facts=news.facts,
            progress=news.progress,
            trouble=news.trouble,
            shadows=news.shadows,
            metrics=() if this.asks else self._telemetry.pending(),
            max_bytes=self._max_bytes,
            spare=this.spare,
            numbering=name_of(*counts) if this.named else None,
            boot=self._boot if this.named else None,
            challenge=this.challenge if this.named else None,
        )
        self._told = max([self._told, *(e.id for e in report.events)])
        self._told_metric = max([self._told_metric, *(w.id for w in report.metrics)])
        return report

    # --- what a "no" leads to

    def _other(self, e: ServerSaid, this: _Try) -> bool:
        """Make another try of a report that was refused; False: there is none."""
        if e.problem == "stale_seq":
            return self._numbered_otherwise(e, this)
        if e.problem == "wrong_fleet" and e.fleet and e.fleet != self.fleet:
            self.fleet = e.fleet
            return True
        if e.status == 413 and not self._cut:
            self._max_bytes, self._cut = SMALL_CHECK_IN_BYTES, True
            return True
        if e.status == 422 and this.spare is not Spare.MOST:
            # an older server, or a part of it that this server cannot take: what matters is said
            this.spare, this.named = this.spare.more(), False
            return True
        return False

    def _numbered_otherwise(self, e: ServerSaid, this: _Try) -> bool:
        if e.challenge is None:
            if e.last_seq is None:
                return False
            self._seq.jump(e.last_seq)
            return True
        if this.named and not this.again and self._seq.has_used(e.last_seq or 0):
            this.again = True  # it has this very report: a second copy came, or its answer was lost
            return True
        self._seq.begin_anew()
        self._seq.note(named=True)
        this.named, this.challenge = True, e.challenge
        return True

    # --- what an answer may say

    def _believed(self, reply: CheckInReply, next_event: int) -> CheckInReply:
        event, metric = reply.acked_event, reply.acked_metric
        older = NUMBERING not in reply.accepts
        self.lost = older and event >= next_event and may_jump(next_event, event)
        if not older:
            metric = min(metric, self._told_metric)
        if not self.lost:
            event = min(event, max(self._told, self.acked))
        self.acked = max(self.acked, event)
        return replace(reply, acked_event=event, acked_metric=metric)
