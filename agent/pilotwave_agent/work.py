"""The short-lived child that does the heavy work, then goes and takes its memory with it.

It holds the work lock, reads the unverified directive from the inbox, has it judged, carries out
the machine's steps until there is nothing left to do now, and says when it wants to be called
again. It may be killed at any moment.

    python -m pilotwave_agent.work --config FILE    a `Job` as JSON on stdin, JSON lines on stdout
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pilotwave_agent import identity, permissions
from pilotwave_agent.check_in.build import status_of, substance
from pilotwave_agent.check_in.numbering import new_name
from pilotwave_agent.core import records
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.core.steps import (
    ClearAway,
    Confirm,
    Moment,
    Move,
    Probe,
    Rest,
    Restore,
    Switch,
    Wait,
)
from pilotwave_agent.effects.carry_out import (
    carry_out,
    clear_unused,
    next_step,
    reconcile,
    take_back_own,
)
from pilotwave_agent.effects.tools import Notes, Tools
from pilotwave_agent.host import lock
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.host.disk import Disk, refusal_of
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.scratch import use_scratch
from pilotwave_agent.identity import Identity
from pilotwave_agent.net.download import ComeAgain
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.net.server_api import channel_of
from pilotwave_agent.read_conditions import look_around, told
from pilotwave_agent.runtimes.confine import die_with_parent
from pilotwave_agent.self_update.slots import must_restart
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import Config
from pilotwave_agent.trust import memory as trust_memory
from pilotwave_agent.trust.inbox import Inbox, Judged
from pilotwave_agent.trust.timefloor import earliest
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.fields import ROOM, Scalar
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState, Reason

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
    disk, `probed` is when models were last probed, `proved` what this agent has done of what a new
    one must, `trouble` what kept it from more, `traced` the models whose steps are told as spans,
    `drifts` the alarms (`check_in.drift`) that the journal does not have yet.
    """

    token: str = ""
    acked: int = 0
    journal: str = ""
    refresh: bool = False
    boot: bool = False
    parent: int = 0
    probed: dict[str, float] = field(default_factory=dict)
    proved: tuple[str, ...] = ()
    trouble: str = ""
    traced: tuple[str, ...] = ()
    drifts: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Done:
    """What the child says at its end.

    `next_wake_s` is when a step is due (None: none); `retry` names the reason of a "no" that may
    pass, `retry_online` says that only the server's return can help,
    `retry_after_s` when a busy one wants to be asked again; `refresh_at` is in epoch
    seconds. A hold ends in `hold_ends_s`, or when a fact of `watch` changes. A directive
    was `verified` or not.
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
    verified: bool = False


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
    layout = Layout(config.data_dir)
    permissions.close_up(layout, config.apps_group)
    permissions.check(layout)
    who = identity.load(layout)
    try:
        use_scratch(config.data_dir)
        with lock.held(layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
            clock = clock or Clock()
            return _run(_tools(config, job, disk or Disk(), tell, clock, root), who, job, clock)
    except OSError as e:
        no = refusal_of(e)
        return Done(retry=str(no.reason), sentence=no.sentence)


def now_of(layout: Layout, clock: Clock | None = None) -> Moment:
    """Return now, never before what the trusted timestamp proves."""
    floor, clock = earliest(trust_memory.load(layout.trust_memory).floor), clock or Clock()
    return Moment(max(clock.wall(), floor.timestamp()), clock.uptime(), clock.boot())


def count(journal: Journal, job: Job, at: float) -> None:
    """Note what the server has, and give a journal that counts under no name, or has no room left
    for its count, a name of its own."""
    state = journal.state
    # what is acknowledged of a journal that was lost says nothing of this one
    if job.acked > state.acked and job.journal == state.numbering:
        journal.append(records.acked(job.acked, at=at))
    if not state.numbering or state.next_event > ROOM:
        journal.append(records.numbered(new_name(), at=at))


def _tools(config: Config, job: Job, disk: Disk, tell: Tell, clock: Clock, root: Path) -> Tools:
    layout = Layout(config.data_dir)
    ahead = min(config.limits.max_rate // 4, MAX_AHEAD)
    connect = partial(channel_of, config, receive_buffer=ahead)
    return Tools(
        config=config,
        disk=disk,
        layout=layout,
        journal=Journal(disk, layout.journal),
        channel=connect(),
        mirrors=Mirrors(
            config.mirrors,
            hosts=config.download_hosts,
            disk=disk,
            path=layout.mirrors,
            connect=connect,
        ),
        token=job.token,
        now=lambda: now_of(layout, clock),
        look_around=lambda: look_around(config, now_of(layout, clock).wall, root=root),
        tell=tell,
        notes=Notes(
            probed=dict(job.probed),
            proved={*job.proved},
            trouble=job.trouble,
            traced=frozenset(job.traced),
        ),
    )


def _run(tools: Tools, who: Identity, job: Job, clock: Clock) -> Done:
    before = substance(tools.journal.state)
    try:
        wake_s, judged = _do_steps(tools, who, job, clock)
        _review_overlays(tools)
    finally:
        tools.channel.close()
        tools.mirrors.close()
    changed = substance(tools.journal.state) != before
    if tools.notes.changed or job.boot:
        clear_unused(tools)
        _write_status(tools)
    return _done(tools, wake_s, judged, changed=changed)


def _review_overlays(tools: Tools) -> None:
    """Where this device adapts models, or did, let go of what may not be used any more."""
    if not tools.layout.all_adapting.exists():
        return
    from pilotwave_agent import overlays  # mostly not allowed

    with contextlib.suppress(OSError):  # a disk that says no is asked another time
        state, wall = tools.journal.state, tools.now().wall
        overlays.review(tools.config, tools.disk, tools.layout, state, wall)


def _do_steps(tools: Tools, who: Identity, job: Job, clock: Clock) -> tuple[float | None, Judged]:
    journal, wall = tools.journal, tools.now().wall
    if journal.damaged:
        detail = f"{journal.damaged} lines were damaged and are passed over"
        tools.record(records.noticed("journal_damaged", at=wall, detail=detail))
    count(journal, job, wall)
    for alarm in job.drifts:
        tools.record(records.drifted(**alarm, at=wall))
    if job.boot:
        reconcile(tools)
    take_back_own(tools)
    # a model between two versions, or one to be probed, waits for no server
    _loop(tools, clock, (Move, Switch, Confirm, Restore, Probe, ClearAway))
    if must_restart(tools.config.data_dir):
        return None, Judged()
    fetcher = Fetcher(tools.channel, tools.mirrors)
    inbox = Inbox(tools.config, who, tools.disk, tools.layout, fetcher, journal, tools.record)
    unproved = (
        tools.slot(AGENT_MODEL).state is ModelState.SWITCHING and "directive" not in job.proved
    )
    wanted = job.refresh or unproved or inbox.is_due()
    judged = inbox.sit(at=wall, anew=unproved) if wanted else Judged()
    if judged.verified:
        tools.notes.proved.add("directive")
    return _loop(tools, clock, (object,)), judged


def _loop(tools: Tools, clock: Clock, wanted: tuple[type, ...]) -> float | None:
    """Carry out steps of these kinds; return the seconds until one is due, None if none will be."""
    while True:
        if must_restart(tools.config.data_dir):
            return None  # another agent goes on from here
        step = next_step(tools)
        if isinstance(step, Rest) or not isinstance(step, wanted):
            return None
        if not isinstance(step, Wait):
            carry_out(tools, step)
        elif step.seconds > LINGER_S:
            return step.seconds
        else:
            clock.sleep(step.seconds)


def _done(tools: Tools, wake_s: float | None, judged: Judged, *, changed: bool) -> Done:
    noes = [*tools.notes.parked.values(), *([judged.passing] if judged.passing else [])]
    first = noes[0] if noes else None
    holds = tools.notes.holds.values()
    ends = [h.retry_s for h in holds if h.retry_s is not None]
    around = told(tools.look_around()) if holds else {}
    return Done(
        next_wake_s=wake_s,
        hold_ends_s=min(ends, default=None),
        watch={fact: around[fact] for h in holds for fact in h.watch},
        retry=str(first.reason) if first else None,
        sentence=first.sentence if first else "",
        retry_online=bool(noes) and all(no.reason in _NETWORK for no in noes),
        retry_after_s=max((no.after_s for no in noes if isinstance(no, ComeAgain)), default=0.0),
        need_token=any(no.reason is Reason.BLOB_DENIED for no in noes),
        refresh_at=judged.refresh_at,
        changed=changed,
        probed=tools.notes.probed,
        verified=judged.verified,
    )


def _write_status(tools: Tools) -> None:
    text = json.dumps(status_of(tools.journal.state), indent=1).encode() + b"\n"
    disk, path = tools.disk, tools.layout.status
    # it is for people; a disk that says no is told of elsewhere
    with contextlib.suppress(OSError):
        if disk.size(path) is None or disk.read(path) != text:
            disk.write_atomic(path, text, 0o644)


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
