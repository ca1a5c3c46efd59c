"""The resident agent: it polls, reports, and calls a child when there is work.

It holds no rules about versions and imports none of what the work needs, so that it stays small. It
writes to disk only what came from the server (a directive) and, seldom, a block of check-in
numbers; an idle poll writes nothing.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pilotwave_agent.apps.mailbox import Mailbox
from pilotwave_agent.core.schedule import NEVER
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.host.disk import Disk, refusal_of
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.identity import Identity
from pilotwave_agent.push.connection import PushConnection, opener_of
from pilotwave_agent.read_conditions import look_around, told
from pilotwave_agent.resident.child import Child
from pilotwave_agent.resident.journal_watch import JournalWatch
from pilotwave_agent.resident.reconsider import Reconsider
from pilotwave_agent.resident.session import Heard, keep_directive, session_of
from pilotwave_agent.self_update.slots import PROOF, must_restart
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_systemd import notify

if TYPE_CHECKING:
    from pilotwave_agent.apps.label_socket import LabelSocket

_LOOK_EVERY_S = 10.0
# what a line that turns bits over may have made of a good directive
_DAMAGED = frozenset(
    {Reason.DIRECTIVE_TOO_LARGE, Reason.BAD_ENVELOPE, Reason.WRONG_KEY, Reason.BAD_DIRECTIVE}
)
_HINT_SPREAD = 0.5  # of a poll interval: what all devices hear at once, they ask about in turn
_LONGEST_SLEEP_S = 86_400.0


class Worker(Protocol):
    """A process that works (`child.Child`)."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when it has said something or ended."""

    def hear(self) -> Iterator[dict[str, Any]]:
        """Yield what it has said."""

    def end(self) -> None:
        """End it now."""


Launch = Callable[[Path, Mapping[str, Any]], Worker]


class Agent:
    """One device's resident agent. `turn` does what is due; `run` does so until a signal comes."""

    def __init__(
        self,
        config: Config,
        config_path: Path,
        who: Identity,
        *,
        clock: Clock | None = None,
        launch: Launch = Child,
        root: Path = Path("/"),
    ) -> None:
        """`launch` starts the process that works, `root` stands in for `/` where the device is
        described."""
        self._config, self._config_path = config, config_path
        self.clock, self._launch, self._root = clock or Clock(), launch, root
        self._layout, self._disk = Layout(config.data_dir), Disk()
        self.session = session_of(config, who, self.clock, root, config_path=config_path)
        self.schedule = self.session.schedule
        longest_s = config.max_poll_interval_s
        self._push = PushConnection(
            opener_of(config, who), self.schedule, self.clock, longest_s=longest_s
        )
        self._child: Worker | None = None
        self._mailbox: Mailbox | None = None
        self._labels: LabelSocket | None = None
        self._watch: dict[str, Any] = {}
        self._look_at = 0.0
        self._reconsider = Reconsider(config, config_path, self.clock, root)
        self._boot = self._refresh = True
        self._asked_refresh = False
        self._refresh_at = NEVER
        self._tried_hint = (0, 0)
        self._probed: dict[str, float] = {}
        self._progress: dict[str, int] = {}
        self._trouble: tuple[str, str] | None = None
        self._wait_for_server = False
        self._proved: set[str] = set()
        self.restarts = False
        """Whether this agent ends because another is to run."""
        self._journal = JournalWatch(self._layout.journal)
        self.state = self._journal.state

    # --- the loop

    def run(self, wakeup: int) -> None:
        """Go on until another agent is to run; a byte on the descriptor `wakeup` ends a sleep."""
        self.start()
        self._open_mailbox()
        notify.notify("READY=1")
        try:
            while not self.restarts:
                self.turn()
                if not self.restarts:
                    self.sleep(wakeup)
        finally:
            notify.notify("STOPPING=1")
            self.close()

    def _open_mailbox(self) -> None:
        config = self._config
        try:
            self._mailbox = Mailbox(self._layout.live, config.apps_group, config.app_users)
            if config.learn.allow:
                from pilotwave_agent.apps.label_socket import LabelSocket  # mostly not allowed

                self._labels = LabelSocket(
                    self._layout.live,
                    config.apps_group,
                    config.app_users,
                    most_bytes=config.learn.max_example_kb << 10,
                )
        except (OSError, KeyError) as e:
            say(f"applications cannot send anything: {e}", level="warning")

    def start(self) -> None:
        """Plan the first things to do."""
        now = self.clock.uptime()
        self.schedule.started(now)
        if self._journal.exists:
            self.schedule.work_at(now)

    def turn(self) -> None:
        """Do what is due, one thing of each kind."""
        self._listen()
        self._look()
        notify.notify("WATCHDOG=1")
        if self._mailbox:
            self._mailbox.empty()
        if self._labels:
            self._labels.turn()
        self.schedule.gather(self.clock.uptime())
        if self.clock.uptime() >= self.schedule.next_check_in:
            if self._mailbox:
                self._mailbox.flush()
            heard = self.session.check_in(self.state(), self._progress, self._trouble)
            self._take(heard)
            self._prove("check_in", done=heard is not None)
            if self.session.drift.alarms:
                self.schedule.work_at(self.clock.uptime())
        self._push.turn(self.session)
        if self.clock.uptime() >= self.schedule.next_poll:
            polled = self.session.poll(self.state())
            self._take(polled)
            self._prove("poll", done=polled is not None)
        if self.clock.wall() >= self._refresh_at:
            self._refresh, self._refresh_at = True, NEVER
            self.schedule.work_at(self.clock.uptime())
        self._watch_conditions()
        if self._reconsider.is_due(refusing=self._journal.last.refusal is not None):
            self._refresh = True
            self.schedule.work_at(self.clock.uptime())
        if self._child is None and self.clock.uptime() >= self.schedule.next_work:
            self._start_work()

    def _prove(self, what: str, *, done: bool) -> None:
        """Remember what a new agent must have done; once all of it is, have that looked at."""
        if not done or what in self._proved:
            return
        self._proved.add(what)
        on_trial = self._journal.last.slot(AGENT_MODEL).state is ModelState.SWITCHING
        if on_trial and self._proved >= set(PROOF):
            self.schedule.work_at(self.clock.uptime())

    def _watch_conditions(self) -> None:
        """Being awake, see whether what holds an order back has changed."""
        now = self.clock.uptime()
        if not self._watch or self._child is not None or now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        around = told(look_around(self._config, self.clock.wall(), root=self._root))
        if any(around[fact] != known for fact, known in self._watch.items()):
            self._watch = {}
            self.schedule.work_at(now)

    def sleep(self, wakeup: int) -> None:
        """Sleep until something is due, the child speaks, or `wakeup` can be read."""
        due = self.schedule.next_due(working=self._child is not None)
        due = min(due, self._push.due(self.session))
        left = min(
            due - self.clock.uptime(), self._refresh_at - self.clock.wall(), _LONGEST_SLEEP_S
        )
        left = min(left, notify.interval_s() or left)
        told = (wakeup, self._child, self._mailbox, self._push.line)
        reads: list[Any] = [r for r in told if r is not None]
        if self._labels:
            reads += self._labels.reads
        if wakeup in self.clock.wait(reads, max(left, 0.0)):
            os.read(wakeup, 512)

    def close(self) -> None:
        """End the child and the connection."""
        self._end_child()
        self._push.close()
        self.session.close()
        for box in (self._mailbox, self._labels):
            if box:
                box.close()

    def _look(self) -> None:
        """Notice what another process (`rollback`) wrote into the journal."""
        if self._child is None and self._journal.has_changed():
            self.state()
            self.schedule.news(self.clock.uptime())
            self.schedule.work_at(self.clock.uptime())

    # --- what the server's words lead to

    def _take(self, heard: Heard | None) -> None:
        if heard is None:
            return
        if heard.directive is not None:
            self._take_directive(heard.directive)
        if heard.renumber or (self._wait_for_server and self.session.token):
            self._wait_for_server = False
            self.schedule.work_at(self.clock.uptime())
        self._take_hint(heard.tuf)

    def _take_directive(self, raw: bytes) -> None:
        """Put a directive into the inbox and have it judged at once."""
        try:
            if not keep_directive(self._disk, self._layout, raw):
                return
        except OSError as e:
            no = refusal_of(e)
            self._troubled((str(no.reason), f"the directive cannot be stored: {no.sentence}"))
            self.session.forget_directive()
            return
        self._end_child()
        self.schedule.work_backoff.reset()
        self.schedule.work_at(self.clock.uptime())

    def _take_hint(self, hint: tuple[int, int]) -> None:
        """Have the metadata refreshed if the server has newer ones. It is only a hint."""
        known = self.state().tuf
        mine = (known.get("root", 0), known.get("timestamp", 0))
        if hint[1] == 0 or hint in (mine, self._tried_hint):
            return
        self._tried_hint, self._refresh = hint, True
        delay = self.schedule.chance.uniform(0, self.schedule.poll_s * _HINT_SPREAD)
        self.schedule.work_at(self.clock.uptime() + delay)

    def _troubled(self, trouble: tuple[str, str] | None) -> None:
        """Remember a disk that says no: the journal may be unable to."""
        if trouble:
            self.session.say_once(trouble[1])
        if trouble != self._trouble:
            self._trouble = trouble
            self.schedule.news(self.clock.uptime())

    # --- the work

    def _start_work(self) -> None:
        self.schedule.next_work = NEVER
        self._asked_refresh = self._refresh
        job = {
            **self.session.job(),
            "refresh": self._refresh,
            "boot": self._boot,
            "probed": self._probed,
            "proved": sorted(self._proved),
            "trouble": self.session.said,
        }
        try:
            self._child = self._launch(self._config_path, job)
        except OSError as e:
            self.session.say_once(f"no process can be started: {e.strerror}")
            self.schedule.work_failed(self.clock.uptime())
            return
        self._refresh = False

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None
            self._refresh = self._refresh or self._asked_refresh

    def _listen(self) -> None:
        """Hear the child out, if there is one."""
        while self._child is not None and select.select([self._child], [], [], 0)[0]:
            for line in self._child.hear():
                self._heard(line)

    def _heard(self, line: dict[str, Any]) -> None:
        if "news" in line:
            self.schedule.news(self.clock.uptime())
        elif "progress" in line:
            self._progress.update(line["progress"])
        elif "span" in line and self.session.traces:
            self.session.traces.heard(line["span"])
        elif "failed" in line:
            self.session.say_once(str(line["failed"]))
        elif "done" in line:
            self._done(line["done"])
        elif "ended" in line:
            self._end_child()
            self.restarts = must_restart(self._layout.root)
            if line["ended"] != 0:
                self.schedule.work_failed(self.clock.uptime())

    def _done(self, done: dict[str, Any]) -> None:
        now = self.clock.uptime()
        self._boot, self._progress, self._probed = False, {}, done["probed"]
        self.session.worked()
        self._watch = done["watch"]
        self._prove("directive", done=done["verified"])
        if done["refresh_at"] is not None:
            self._refresh_at, self._asked_refresh = done["refresh_at"], False
        for wait_s in (done["next_wake_s"], done["hold_ends_s"]):
            if wait_s is not None:
                self.schedule.work_at(now + wait_s)
        refusal = self.state().refusal
        if refusal and refusal.reason in _DAMAGED:
            self.session.forget_directive()
        retry = done["retry"]
        self._troubled((retry, done["sentence"]) if retry and retry.startswith("disk_") else None)
        self.state()
        if retry is None:
            self.schedule.work_backoff.reset()
            return
        if done["need_token"]:
            self.schedule.need_token(now)
        if done["need_token"] or (done["retry_online"] and not self.session.online):
            self._wait_for_server = True
        else:
            self.schedule.work_failed(now, done["retry_after_s"])
