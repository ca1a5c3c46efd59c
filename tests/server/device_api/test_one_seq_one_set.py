"""Two server processes that lag in any way never tell a device two sets under one `seq`.

A device takes that for an attack (`directive_fork`) and stops. Each process here is a `FleetState`
with its `Polls`; when it looks for news is drawn at random, and so is what operators and devices
do meanwhile: rollouts go in waves, with leases and without, are paused, aborted and rolled back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotwave_protocol import dsse
from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_protocol.messages.directive import (
    DIRECTIVE_TYPE,
    MAX_DIRECTIVE_BYTES,
    Directive,
    parse_directive,
)
from pilotwave_server.db import Database, lock_fleet, next_revision
from pilotwave_server.device_api.poll import Polls
from pilotwave_server.device_api.tokens import DeviceTokens
from pilotwave_server.devices.service import get_device, set_labels
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.downloads.counting import Counting
from pilotwave_server.errors import Conflict
from pilotwave_server.fleet.leases import FleetLeases
from pilotwave_server.fleet.loader import Loader
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.groups.service import add_member, create_group, delete_group, remove_member
from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.metrics import Metrics
from pilotwave_server.pacing import Pacing
from pilotwave_server.registry.service import deny, undeny
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.rollouts import leases
from pilotwave_server.rollouts.assignments import baselines, pins
from pilotwave_server.rollouts.assignments.load_device import look
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.assignments.resolve import resolve
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.operate import steer
from pilotwave_server.rollouts.operate.create import NewRollout, create_rollout
from pilotwave_server.rollouts.policies.policy import Canary, Pace, Policy, Wave
from pilotwave_server.rollouts.tables import RolloutDeviceRow
from pilotwave_server.telemetry.store import VerifiedCheckIn, store_check_ins
from tests.server.challenges import NoChallenges
from tests.server.fleet_fixtures import VERSIONS
from tests.server.registry.registry import Registry

DEVICES = 3
PROCESSES = 2
RUNS = count()
BY = "token/test"
STEPS: dict[str, Any] = {
    "next wave": steer.next_wave,
    "pause": steer.pause,
    "resume": steer.resume,
    "abort": steer.abort,
    "roll back": steer.roll_back,
    "retry failed": steer.retry_failed,
}


class Process:
    """One server process: it learns of changes when it is told to look."""

    def __init__(self, registry: Registry) -> None:
        trust = TrustStore(registry.db, registry.data_dir)
        self.fleet = FleetState(registry.db, trust)
        self.tokens = DeviceTokens(FolderKeys(registry.data_dir / "keys"))
        self.fleet.refresh()
        self.desk = FleetLeases(registry.db, self.fleet, registry.clock)
        self.polls = Polls(
            self.fleet,
            Loader(self.fleet.load),
            self.tokens,
            director=trust,
            clock=registry.clock,
            metrics=Metrics(),
            lifetime_s=7 * 86_400,
            note_seen=lambda record: None,
            note_s=60.0,
            ask_lease=self.desk.ask,
            downloads=Admission(
                counting=Counting(registry.db), metrics=Metrics(), most=1, per_device=1, waiting=0
            ),
            pacing=Pacing(),
        )
        self.expires = int(registry.clock().timestamp()) + 900

    def ask(self, device: str) -> Directive:
        token = self.tokens.issue(device, 1, expires=self.expires).encode()
        scope = {"type": "http", "headers": [(b"authorization", b"Bearer " + token)]}
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.polls(scope, receive, send))
        assert sent[0]["status"] == 200, sent
        claimed = dsse.peek_unverified(
            sent[1]["body"], payload_type=DIRECTIVE_TYPE, max_bytes=MAX_DIRECTIVE_BYTES
        )
        return parse_directive(claimed.payload)


@dataclass
class World:
    """One example's devices and groups, under names of their own in a database that stays."""

    registry: Registry
    processes: list[Process]
    run: int = field(default_factory=lambda: next(RUNS))
    seqs: dict[str, int] = field(default_factory=dict)
    told: dict[tuple[str, int], str] = field(default_factory=dict)
    last: dict[tuple[int, str], int] = field(default_factory=dict)
    rollouts: list[int] = field(default_factory=list)
    remembered: RememberedSnapshot = field(default_factory=RememberedSnapshot)

    def __post_init__(self) -> None:
        now = self.registry.clock()
        with self.db.write() as session:
            revision = next_revision(session)
            session.add_all(
                DeviceRow(
                    name=self.device(n),
                    public_key=f"{self.run * DEVICES + n:064x}",
                    state="enrolled",
                    revision=revision,
                    labels={"run": str(self.run)},
                    facts={"runtime.onnxruntime": "1.20"},
                    created_at=now,
                )
                for n in range(DEVICES)
            )
            for site in "ab":
                self.make(session, f"site-{site}", f"run={self.run}, site={site}")
            self.make(session, "charged", f"run={self.run}, battery>20")
            self.make(session, "list", None)
            self.make(session, "all", f"run={self.run}")

    @property
    def db(self) -> Database:
        return self.registry.db

    def device(self, n: int) -> str:
        return f"cam-{self.run}-{n}"

    def group(self, name: str) -> str:
        return f"{name}-{self.run}"

    def make(self, session: Any, name: str, selector: str | None) -> None:
        create_group(
            session,
            name=self.group(name),
            selector=selector,
            description="",
            actor=BY,
            now=self.registry.clock(),
        )

    def act(self, step: tuple[Any, ...]) -> None:
        kind, *what = step
        if kind == "look":
            self.processes[what[0]].fleet.refresh()
        elif kind == "poll":
            self.poll(what[0], self.device(what[1]))
        elif kind == "desk":
            self.processes[what[0]].desk.work()
        elif kind == "report":
            self.report(self.device(what[0]), what[1])
        else:
            with self.db.write() as session:
                try:
                    self.operate(session, kind, *what)
                except Conflict:
                    session.rollback()

    def operate(self, session: Any, kind: str, *what: Any) -> None:
        how: dict[str, Any] = {"actor": BY, "now": self.registry.clock()}
        snapshot = read_snapshot(session, self.remembered)
        if kind == "label":
            labels = {"run": str(self.run), "site": what[1]}
            set_labels(session, name=self.device(what[0]), labels=labels, **how)
        elif kind == "assign":
            group, order = self.group(what[0]), {"model": "detector", "version": what[1]}
            baselines.set_baseline(session, snapshot, group=group, **order, **how)
        elif kind == "pin":
            order = {"model": "detector", "version": what[1], "reason": "test"}
            pins.pin(session, snapshot, name=self.device(what[0]), **order, **how)
        elif kind == "retry":
            pins.retry(session, name=self.device(what[0]), model="detector", **how)
        elif kind == "deny":
            deny(session, model="detector", version=what[0], reason="test", **how)
        elif kind == "undeny":
            undeny(session, model="detector", version=what[0], **how)
        elif kind == "join":
            add_member(session, name=self.group("list"), device=self.device(what[0]), **how)
        elif kind == "leave":
            remove_member(session, name=self.group("list"), device=self.device(what[0]), **how)
        elif kind == "regroup":
            delete_group(session, name=self.group("list"), **how)
            self.make(session, "list", None)

        elif kind == "roll out":
            self.roll_out(session, snapshot, *what)
        elif kind == "outcome":
            self.outcome(session, *what)
        elif kind in STEPS:
            self.step(session, snapshot, kind, *what)

    def roll_out(self, session: Any, snapshot: FleetSnapshot, *what: Any) -> None:
        group, version, paced, waves = what
        policy = Policy(
            "test",
            (
                Wave("named", canary=Canary(devices=(self.device(0),))),
                Wave("sited", canary=Canary(selector="site=b")),
                Wave("half", percent=50),
                Wave("all", percent=100),
            ),
            pace=Pace(max_in_flight=1 if paced else None),
        )
        wish = NewRollout(
            self.group(group), "detector", version, policy, start=True, allow_empty=True
        )
        now = self.registry.clock()
        made = create_rollout(session, snapshot, wish, actor=BY, now=now)
        self.rollouts.append(made.id)
        for _ in range(waves):
            steer.next_wave(session, name=f"r{made.id}", reason="", actor=BY, now=now)

    def step(self, session: Any, snapshot: FleetSnapshot, kind: str, which: int) -> None:
        if not self.rollouts:
            return
        name = f"r{self.rollouts[max(which, -len(self.rollouts))]}"
        how: dict[str, Any] = {"reason": "", "actor": BY, "now": self.registry.clock()}
        if kind == "resume":
            steer.resume(session, snapshot, name=name, **how)
        else:
            STEPS[kind](session, name=name, **how)

    def outcome(self, session: Any, which: int, n: int, outcome: str) -> None:
        """What a check-in does with what a device says came of a rollout."""
        if not self.rollouts:
            return
        lock_fleet(session)
        rollout = self.rollouts[max(which, -len(self.rollouts))]
        device = get_device(session, self.device(n)).id
        row = session.get(RolloutDeviceRow, (rollout, device))
        if row is None:
            row = RolloutDeviceRow(rollout_id=rollout, device_id=device, wave=0, number=0)
            session.add(row)
        row.outcome, row.changed_at = outcome, self.registry.clock()
        session.flush()
        leases.revise(session, [device])

    def report(self, device: str, battery: int) -> None:
        """A check-in that reaches process 0."""
        self.seqs[device] = self.seqs.get(device, 0) + 1
        facts = {"runtime.onnxruntime": "1.20", "battery": battery}
        with self.db.read() as session:
            id = get_device(session, device).id
        check_in = CheckIn("f", device, self.seqs[device], "0", 0, {}, facts=facts)
        matters = self.processes[0].fleet.matters
        now = self.registry.clock()
        with self.db.write() as session:
            items = [VerifiedCheckIn(id, 1, check_in)]
            given = {"matters": matters, "challenges": NoChallenges()}
            store_check_ins(session, items, **given, check_in_s=900, now=now)

    def poll(self, process: int, device: str) -> Directive:
        found = self.processes[process].ask(device)
        digest = self.told.setdefault((device, found.seq), found.set_digest)
        assert digest == found.set_digest, f"{device} was told two sets under {found.seq}"
        assert found.seq >= self.last.get((process, device), 0), "seq fell within a process"
        self.last[process, device] = found.seq
        return found

    def settle(self) -> None:
        """When all have looked, all say what the database says."""
        for process in self.processes:
            process.fleet.refresh()
        for n in range(DEVICES):
            device = self.device(n)
            with self.db.read() as session:
                snapshot = read_snapshot(session, self.remembered)
                expected = resolve(look(session, snapshot, device).view, snapshot).entries
            answers = [self.poll(p, device) for p in range(PROCESSES)]
            assert [a.entries for a in answers] == [expected] * PROCESSES
            assert len({a.seq for a in answers}) == 1


devices = st.integers(0, DEVICES - 1)
processes = st.integers(0, PROCESSES - 1)
versions = st.sampled_from(VERSIONS)
looks = st.tuples(st.just("look"), processes)
polls = st.tuples(st.just("poll"), processes, devices)
rollouts = st.sampled_from([-1, -1, -1, -2])
rollout_steps = (
    st.tuples(
        st.just("roll out"),
        st.sampled_from(["all", "all", "charged", "list"]),
        versions,
        st.booleans(),
        st.integers(0, 4),
    ),
    st.tuples(st.just("next wave"), rollouts),
    st.tuples(st.sampled_from(sorted(STEPS)), rollouts),
    st.tuples(
        st.just("outcome"), rollouts, devices, st.sampled_from(["switched", "healthy", "failed"])
    ),
    st.tuples(st.just("desk"), processes),
)
steps = st.one_of(
    looks,
    polls,
    polls,
    polls,
    st.tuples(st.just("label"), devices, st.sampled_from("ab")),
    st.tuples(
        st.just("assign"), st.sampled_from(["site-a", "site-b", "charged", "list"]), versions
    ),
    st.tuples(st.just("pin"), devices, versions),
    st.tuples(st.just("retry"), devices),
    st.tuples(st.just("deny"), versions),
    st.tuples(st.just("undeny"), versions),
    st.tuples(st.sampled_from(["join", "leave"]), devices),
    st.tuples(st.just("report"), devices, st.sampled_from([10, 30, 31])),
    st.just(("regroup",)),
    st.one_of(rollout_steps),
    st.one_of(rollout_steps),
    st.one_of(rollout_steps),
    st.one_of(rollout_steps),
    st.one_of(rollout_steps),
    st.one_of(rollout_steps),
)


@pytest.fixture
def running(published: Registry) -> list[Process]:
    return [Process(published) for _ in range(PROCESSES)]


def _examples(count: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks)


@_examples(15)
@given(plan=st.lists(steps, min_size=5, max_size=40))
def test_one_seq_stands_for_one_set(
    published: Registry, running: list[Process], plan: list[tuple[Any, ...]]
) -> None:
    _play(published, running, plan)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@_examples(300)
@given(plan=st.lists(steps, min_size=5, max_size=40))
def test_one_seq_stands_for_one_set_in_many_plans(
    published: Registry, running: list[Process], plan: list[tuple[Any, ...]]
) -> None:
    _play(published, running, plan)


def _play(published: Registry, running: list[Process], plan: list[tuple[Any, ...]]) -> None:
    world = World(published, running)
    for step in plan:
        world.act(step)
    world.settle()
    for version in VERSIONS:
        world.act(("undeny", version))
