"""The short-lived child that does the heavy work, then goes and takes its memory with it.

It holds the work lock, reads the unverified directive from the inbox, has it judged, carries out
the machine's steps until there is nothing left to do now, and says when it wants to be called
again. It may be killed at any moment.

    python -m pilotwave_agent.work --config FILE    a `Job` as JSON on stdin, JSON lines on stdout
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pilotwave_agent import identity, permissions
from pilotwave_agent.check_in.build import status_of, substance
from pilotwave_agent.check_in.numbering import new_name
from pilotwave_agent.core import records
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.core.machine import (
    ClearAway,
    Confirm,
    Moment,
    Move,
    Probe,
    Rest,
    Restore,
    Step,
    Switch,
    Wait,
)
from pilotwave_agent.effects.effects import Effects, moment
from pilotwave_agent.host import lock
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.host.disk import Disk, refusal_of
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.scratch import use_scratch
from pilotwave_agent.identity import Identity
from pilotwave_agent.net.download import ComeAgain
from pilotwave_agent.net.http import Channel
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.read_conditions import look_around, told
from pilotwave_agent.runtimes.confine import die_with_parent
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import Config
from pilotwave_agent.trust import memory as trust_memory
from pilotwave_agent.trust.inbox import Inbox, Judged
from pilotwave_agent.trust.timefloor import earliest
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.fields import ROOM, Scalar
from pilotwave_protocol.states import Reason

LINGER_S = 1.5
"""A wait shorter than this is slept through: starting a process again would cost more."""
LOCK_WAIT_S = 20.0
MAX_AHEAD = 4 << 20
_NETWORK = frozenset(
    {
        Reason.METADATA_UNAVAILABLE,
        Reason.SLOW_RETRIEVAL,
        Reason.BLOB_UNAVAILABLE,
    }
)


@dataclass(frozen=True)
class Job:
    """What the resident process tells its child.

    `token` reads blobs, `acked` is the newest event the server has in the count of the journal
    called `journal`, `refresh` asks for a refresh of metadata, `boot` for a check of everything on
    disk, `probed` is when models were last probed.
    """

    token: str = ""
    acked: int = 0
    journal: str = ""
    refresh: bool = False
    boot: bool = False
    parent: int = 0
    probed: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What the child says at its end.

    `next_wake_s` is when a step is due (None: none); `retry` names the reason of a "no" that may
    pass, `retry_online` says that only the server's return can help,
    `retry_after_s` when a busy one wants to be asked again; `refresh_at` is in epoch
    seconds. A hold ends in `hold_ends_s`, or when a fact of `watch` changes.
    """

    next_wake_s: float | None = None
    hold_ends_s: float | None = None
    retry: str | None = None
    sentence: str = ""
    retry_online: bool = False
    retry_after_s: float = 0.0
    need_token: bool = False
    refresh_at: float | None = None
    changed: bool = False
    probed: dict[str, float] = field(default_factory=dict)
    watch: dict[str, Scalar | None] = field(default_factory=dict)


Tell = Callable[[dict[str, Any]], None]


def work(
    config: Config,
    job: Job,
    *,
    disk: Disk | None = None,
    tell: Tell = lambda line: None,
    clock: Clock | None = None,
    root: Path = Path("/"),
) -> Done:
    """Do what is to be done now; `root` stands in for `/` where the device is described.

    Raises `Held`, `NotEnrolled`, `BadIdentity`, `BadCustody`.
    """
    disk, layout = disk or Disk(), Layout(config.data_dir)
    world = Surroundings(clock or Clock(), root)
    permissions.close_up(layout, config.apps_group)
    permissions.check(layout)
    who = identity.load(layout)
    try:
        use_scratch(config.data_dir)
        with lock.held(layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
            return _Work(config, who, job, disk, layout, tell, world).run()
    except OSError as e:
        no = refusal_of(e)
        return Done(retry=str(no.reason), sentence=no.sentence)


@dataclass(frozen=True)
class Surroundings:
    """What stands around one run of the child: the clock and the tree that describes the device."""

    clock: Clock
    root: Path


def now_of(layout: Layout, clock: Clock | None = None) -> Moment:
    """Return now, never before what the trusted timestamp proves."""
    floor = earliest(trust_memory.load(layout.trust_memory).floor)
    return moment(floor.timestamp(), clock or Clock())


def count(journal: Journal, job: Job, at: float) -> None:
    """Note what the server has, and give a journal that counts under no name, or has no room left
    for its count, a name of its own."""
    state = journal.state
    # what is acknowledged of a journal that was lost says nothing of this one
    if job.acked > state.acked and job.journal == state.numbering:
        journal.append(records.acked(job.acked, at=at))
    if not state.numbering or state.next_event > ROOM:
        journal.append(records.numbered(new_name(), at=at))


class _Work:
    """One run of the child."""

    def __init__(
        self,
        config: Config,
        who: Identity,
        job: Job,
        disk: Disk,
        layout: Layout,
        tell: Tell,
        around: Surroundings,
    ) -> None:
        self.job, self.disk, self.layout, self.tell = job, disk, layout, tell
        self.config, self.clock, self.root = config, around.clock, around.root
        self.journal = Journal(disk, layout.journal)
        lines: dict[str, Any] = {
            "ca_file": config.ca_file,
            "gap_s": config.network_timeout_s,
            "receive_buffer": min(config.limits.max_rate // 4, MAX_AHEAD),
            "proxies": config.proxies,
        }
        self.mirrors = Mirrors(config.mirrors, disk=disk, path=layout.mirrors, **lines)
        self.channel = Channel(config.server, **lines)
        self.judge = Inbox(config, who, disk, layout, Fetcher(self.channel, self.mirrors))
        self.told_progress = 0.0
        self.effects = Effects(
            config=config,
            disk=disk,
            layout=layout,
            journal=self.journal,
            channel=self.channel,
            now=self._now,
            look_around=self._look_around,
            token=job.token,
            tell_progress=self._progress,
            tell_news=lambda: tell({"news": True}),
            probed=dict(job.probed),
            mirrors=self.mirrors,
        )

    def _now(self) -> Moment:
        return now_of(self.layout, self.clock)

    def _look_around(self) -> Environment:
        return look_around(self.config, self._now().wall, root=self.root)

    def _progress(self, model: str, percent: int) -> None:
        if time.monotonic() - self.told_progress >= 1:
            self.told_progress = time.monotonic()
            self.tell({"progress": {model: percent}})

    def run(self) -> Done:
        before = substance(self.journal.state)
        try:
            wake_s, judged = self._steps()
        finally:
            self.channel.close()
            self.mirrors.close()
        changed = substance(self.journal.state) != before
        if self.effects.changed or self.job.boot:
            self.effects.clear()
            self._write_status()
        return self._done(wake_s, judged, changed=changed)

    def _steps(self) -> tuple[float | None, Judged]:
        wall = self._now().wall
        if self.journal.damaged:
            detail = f"{self.journal.damaged} lines were damaged and are passed over"
            self.effects.record(records.noticed("journal_damaged", at=wall, detail=detail))
        count(self.journal, self.job, wall)
        if self.job.boot:
            self.effects.reconcile()
        # a model between two versions, or one to be probed, waits for no server
        self._loop(
            lambda step: isinstance(step, (Move, Switch, Confirm, Restore, Probe, ClearAway))
        )
        judged = Judged()
        if self.job.refresh or self.judge.is_due(self.journal.state):
            judged = self.judge.sit(lambda: self.journal.state, self.effects.record, at=wall)
        wake_s = self._loop(lambda step: True)
        return wake_s, judged

    def _loop(self, wanted: Callable[[Step], bool]) -> float | None:
        """Carry out wanted steps; return the seconds until one is due, None if none will be."""
        while True:
            step = self.effects.next()
            if isinstance(step, Rest) or not wanted(step):
                return None
            if isinstance(step, Wait):
                if step.seconds > LINGER_S:
                    return step.seconds
                self.clock.sleep(step.seconds)
            else:
                self.effects.carry_out(step)

    def _done(self, wake_s: float | None, judged: Judged, *, changed: bool) -> Done:
        noes = [*self.effects.parked.values(), *([judged.passing] if judged.passing else [])]
        first = noes[0] if noes else None
        holds = self.effects.holds.values()
        ends = [h.retry_s for h in holds if h.retry_s is not None]
        around = told(self._look_around()) if holds else {}
        return Done(
            next_wake_s=wake_s,
            hold_ends_s=min(ends, default=None),
            watch={fact: around[fact] for h in holds for fact in h.watch},
            retry=str(first.reason) if first else None,
            sentence=first.sentence if first else "",
            retry_online=bool(noes) and all(no.reason in _NETWORK for no in noes),
            retry_after_s=max(
                (no.after_s for no in noes if isinstance(no, ComeAgain)), default=0.0
            ),
            need_token=any(no.reason is Reason.BLOB_DENIED for no in noes),
            refresh_at=judged.refresh_at,
            changed=changed,
            probed=self.effects.probed,
        )

    def _write_status(self) -> None:
        text = json.dumps(status_of(self.journal.state), indent=1).encode() + b"\n"
        try:
            if self.disk.size(self.layout.status) is None or (
                self.disk.read(self.layout.status) != text
            ):
                self.disk.write_atomic(self.layout.status, text, 0o644)
        except OSError:
            return  # it is for people; a disk that says no is told of elsewhere


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run one job as told on stdin."""
    parser = argparse.ArgumentParser(prog="pilotwave_agent.work")
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    job = Job(**json.loads(sys.stdin.buffer.read()))
    if job.parent:
        die_with_parent(job.parent)
    try:
        done = work(settings.load(arguments.config), job, tell=_tell)
    except PilotwaveError as e:
        _tell({"failed": str(e)})
        sys.exit(1)
    _tell({"done": asdict(done)})


if __name__ == "__main__":
    main()
