"""Do all that is to be done now, then end: for devices that are awake for minutes a day.

It talks as the resident agent does and works in this process; a probation that has begun is seen
through to its end.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pilotwave_agent import identity, permissions
from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.check_in.numbering import Sequence
from pilotwave_agent.check_in.send import News, Reporter
from pilotwave_agent.core.journal import read_state
from pilotwave_agent.facts import facts_of
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.identity import Identity
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import BadAnswer, Unreachable
from pilotwave_agent.net.server_api import ServerSaid, channel_of
from pilotwave_agent.settings.config import Config
from pilotwave_agent.work import Done, Job, work
from pilotwave_protocol.messages import CheckInReply

_NO = (ServerSaid, Unreachable, BadAnswer)


def once(config: Config, config_path: Path) -> str | None:
    """Check in, poll, work, check in. Return a sentence if something could not be done."""
    layout = Layout(config.data_dir)
    permissions.close_up(layout, config.apps_group)
    permissions.check(layout)
    who = identity.load(layout)
    with lock.held(layout.run_lock, "the agent"):
        visit = _Visit(config, who, layout)
        try:
            return visit.make()
        finally:
            visit.channel.close()


class _Visit:
    def __init__(self, config: Config, who: Identity, layout: Layout) -> None:
        self.config, self.who, self.layout = config, who, layout
        self.channel = channel_of(config)
        self.telemetry = Telemetry(Disk(), layout.live, layout.telemetry, config.app_users)
        seq = Sequence(Disk(), layout.seq)
        self.reporter = Reporter(self.channel, who, seq, self.telemetry)

    def make(self) -> str | None:
        token, trouble = "", None
        try:
            token = self._report().token
            self._poll(token)
        except _NO as e:
            trouble = str(e)
        done = self._work(token)
        if token and done.changed:
            try:
                self._report()
            except _NO as e:
                trouble = str(e)
        return trouble or done.sentence or None

    def _work(self, token: str) -> Done:
        job = Job(token=token, refresh=bool(token), boot=True, **self._acked)
        done = work(self.config, job)
        changed = done.changed
        while done.next_wake_s is not None:
            time.sleep(done.next_wake_s)
            done = work(self.config, Job(token=token, probed=done.probed, **self._acked))
            changed = changed or done.changed
        return Done(sentence=done.sentence, changed=changed)

    def _poll(self, token: str) -> None:
        polled = server_api.poll(self.channel, token, "")
        if polled.raw is not None:
            disk = Disk()
            disk.make_dirs(self.layout.inbox.parent)
            disk.write_atomic(self.layout.inbox, polled.raw)

    @property
    def _acked(self) -> dict[str, Any]:
        return {"acked": self.reporter.acked, "journal": self.reporter.journal}

    def _report(self) -> CheckInReply:
        self.telemetry.collect(time.time())
        news = News(facts=facts_of(self.config))
        reply = self.reporter.send(read_state(self.layout.journal), news)
        self.telemetry.acked(reply.acked_metric)
        return reply
