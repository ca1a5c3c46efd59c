"""What holds whatever operators do, devices report, processes crash and clocks say.

Each machine has devices of its own in a database that stays, a server of two processes (a
`FleetState`, a `FleetLeases` and an `Engine` each, which may lag), and one rollout after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from pilotwave_protocol.messages.check_in import CheckIn, DeviceEvent, Installed, ModelReport
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.shadow import SHADOW
from pilotwave_protocol.states import ModelState
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.db import Database, next_revision
from pilotwave_server.device_api.ingest import Ingest
from pilotwave_server.devices.tables import PRIME, DeviceRow
from pilotwave_server.downloads.counting import Counting
from pilotwave_server.errors import ServerError
from pilotwave_server.fleet.leases import FleetLeases
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.groups.service import create_group
from pilotwave_server.registry.service import deny, undeny
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.rollouts.assignments import baselines
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.engine import engine
from pilotwave_server.rollouts.engine.actions import Action
from pilotwave_server.rollouts.engine.engine import Engine
from pilotwave_server.rollouts.engine.execute import execute
from pilotwave_server.rollouts.engine.observe import active_rollouts
from pilotwave_server.rollouts.operate import steer as operate_steer
from pilotwave_server.rollouts.operate.create import NewRollout, create_rollout
from pilotwave_server.rollouts.policies.policy import (
    Canary,
    Deadlines,
    InstallGate,
    OnFailure,
    Pace,
    Policy,
    Wave,
)
from pilotwave_server.rollouts.policies.shadow import ShadowPart
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.states import RolloutState, may_follow
from pilotwave_server.rollouts.tables import (
    BaselineRow,
    DecisionRow,
    QuarantineRow,
    RolloutDeviceRow,
    RolloutRow,
    RolloutWaveRow,
)
from pilotwave_server.rollouts.transitions import RolloutMoved
from pilotwave_server.rollouts.waves import position
from pilotwave_server.telemetry.store import VerifiedCheckIn
from tests.server.challenges import NoChallenges
from tests.server.registry.registry import Registry

pytestmark = pytest.mark.long

S = ModelState
DEVICES = 5
RUNS = count()
BY, OTHER = "token/author", "token/other"
COUNTERS = {"1.0.0": 1, "1.1.0": 2, "1.2.0": 3}
GATE = (InstallGate(max_failure_rate=0.3),)
ALL = Wave("all", percent=100, gates=GATE)
HALF = Wave("half", percent=50, gates=GATE, soak_s=60)
SOON = Deadlines(silent_s=600, lease_s=300, unreached_s=3600)
TABLES = (RolloutRow, RolloutWaveRow, RolloutDeviceRow, DecisionRow, BaselineRow, QuarantineRow)
STEPS: dict[str, Any] = {
    "start": operate_steer.start,
    "approve": operate_steer.approve,
    "pause": operate_steer.pause,
    "resume": operate_steer.resume,
    "next": operate_steer.next_wave,
    "abort": operate_steer.abort,
    "rollback": operate_steer.roll_back,
    "retry": operate_steer.retry_failed,
}
# what ends a rollout comes seldom, so that most of them get somewhere
OFTEN = [*STEPS, *["approve", "pause", "resume", "resume", "next", "retry"] * 3]
RECIPES = ["waves", "paced", "counted", "by hand", "tried"]
WITH_SNAPSHOT = {"start", "approve", "resume"}
OUTCOMES = st.sampled_from(["well", "well", "well", "well", "trial", "fails", "back"])


def policies(canary: str) -> dict[str, Policy]:
    first = Wave("canary", canary=Canary(devices=(canary,)), gates=GATE)
    count = Wave("two", count=2, gates=GATE, min_sample=2)
    paced = Pace(max_in_flight=2)
    named = Canary(devices=(canary,))
    tried = (
        Wave("in shadow", canary=named, shadow=ShadowPart(optional=True), gates=GATE),
        Wave("two in shadow", count=2, shadow=ShadowPart(optional=True), gates=GATE),
    )
    return {
        "tried": Policy("tried", (*tried, HALF, ALL), deadlines=SOON),
        "waves": Policy("waves", (first, HALF, ALL), deadlines=SOON),
        "paced": Policy("paced", (HALF, ALL), pace=paced, deadlines=SOON),
        "counted": Policy("counted", (count, ALL), on_failure=OnFailure.PAUSE, deadlines=SOON),
        "by hand": Policy("by-hand", (Wave("one", count=1, manual=True), ALL), approval=True),
    }


@dataclass
class Device:
    """A device that does as it is told when the machine says so."""

    name: str
    id: int
    current: str = "1.0.0"
    state: ModelState = S.HEALTHY
    candidate: str | None = None
    ordered: Entry | None = None
    seq: int = 0
    told_seq: int = 0
    failed: tuple[str, int] | None = None
    events: tuple[DeviceEvent, ...] = ()

    def report(self) -> ModelReport:
        def slot(version: str | None) -> Installed | None:
            return version and Installed(version, "ab" * 32, "onnx-fp32", COUNTERS[version])  # type: ignore[return-value]

        return ModelReport(
            "detector", self.state, slot(self.current), candidate=slot(self.candidate)
        )


class Process:
    """One server process, as far as rollouts go."""

    def __init__(self, registry: Registry, steady: Callable[[], float]) -> None:
        self.db, self.clock = registry.db, registry.clock
        self.fleet = FleetState(registry.db, TrustStore(registry.db, registry.data_dir))
        self.fleet.refresh()
        self.desk = FleetLeases(registry.db, self.fleet, registry.clock)
        self.engine = Engine(registry.db, self.fleet, registry.clock, check_in_s=60, steady=steady)
        self.engine.moment()
        self.ingest = Ingest(
            registry.db,
            self.fleet,
            registry.clock,
            challenges=NoChallenges(),
            counting=Counting(registry.db),
            check_in_s=900,
            wake=lambda: None,
        )

    def told(self, name: str) -> Entry | None:
        record = self.fleet.load([name])[name]
        order = self.fleet.order(record, self.fleet.snapshot)
        if record.wants:
            self.desk.ask(record, self.clock().timestamp())
        return next((e for e in order.entries if e.model == "detector"), None)

    def take(self, item: VerifiedCheckIn) -> None:
        """As if the device had sent it to this process."""
        assert self.ingest([item])[0].refusal is None


class Crash(Exception):
    """The process dies before it commits."""


class Machine(RuleBasedStateMachine):
    registry: ClassVar[Registry]

    def __init__(self) -> None:
        super().__init__()
        self.run = next(RUNS)
        self.passed = 0.0
        self.remembered = RememberedSnapshot()
        self.group = f"cams-{self.run}"
        self.seen: dict[int, tuple[int, int]] = {}
        self.paused_held: set[str] = set()
        with self.db.write() as session:
            revision = next_revision(session)
            rows = [
                DeviceRow(
                    name=f"cam-{self.run}-{n}",
                    public_key=f"{self.run * DEVICES + n:064x}",
                    state="enrolled",
                    revision=revision,
                    labels={"run": str(self.run)},
                    facts={"runtime.onnxruntime": "1.20", "shadows": True},
                    created_at=self.now,
                )
                for n in range(DEVICES)
            ]
            session.add_all(rows)
            told = {"selector": f"run={self.run}", "description": "", "actor": BY}
            create_group(session, name=self.group, **told, now=self.now)
            session.flush()
            self.devices = [Device(row.name, row.id) for row in rows]
            how = {"group": self.group, "model": "detector", "version": "1.0.0"}
            snapshot = read_snapshot(session, self.remembered)
            baselines.set_baseline(session, snapshot, **how, actor=BY, now=self.now)
        self.processes = [self.process() for _ in range(2)]

    def process(self) -> Process:
        return Process(self.registry, lambda: self.passed)

    @property
    def db(self) -> Database:
        return self.registry.db

    @property
    def now(self) -> Any:
        return self.registry.clock()

    def mine(self, session: Any) -> list[RolloutRow]:
        r = RolloutRow
        return list(session.scalars(select(r).where(r.id.in_(self.ids(session))).order_by(r.id)))

    def ids(self, session: Any) -> list[int]:
        group = baselines.get_group(session, self.group).id
        return list(session.scalars(select(RolloutRow.id).where(RolloutRow.group_id == group)))

    # --- operators

    @initialize(recipe=st.sampled_from(RECIPES))
    def begin(self, recipe: str) -> None:
        self.create("1.1.0", recipe)

    @rule(
        version=st.sampled_from(["1.1.0", "1.2.0"]),
        recipe=st.sampled_from(RECIPES),
    )
    def create(self, version: str, recipe: str) -> None:
        policy = policies(self.devices[0].name)[recipe]
        wish = NewRollout(self.group, "detector", version, policy, start=True)
        with self.maybe(), self.db.write() as session:
            snapshot = read_snapshot(session, self.remembered)
            create_rollout(session, snapshot, wish, actor=BY, now=self.now)

    @rule(step=st.sampled_from(OFTEN), actor=st.sampled_from([BY, OTHER]))
    def steer(self, step: str, actor: str) -> None:
        with self.maybe(), self.db.write() as session:
            rows = self.mine(session)
            if rows:
                before = [read_snapshot(session, self.remembered)] if step in WITH_SNAPSHOT else []
                how = {"reason": "", "actor": actor, "now": self.now}
                STEPS[step](session, *before, name=f"r{rows[-1].id}", **how)

    @rule(version=st.sampled_from(["1.1.0", "1.2.0"]), chance=st.integers(0, 9))
    def deny(self, version: str, chance: int) -> None:
        back = chance < 9
        with self.maybe(), self.db.write() as session:
            named = {"model": "detector", "version": version, "actor": BY, "now": self.now}
            undeny(session, **named) if back else deny(session, **named, reason="too slow")

    @contextmanager
    def maybe(self) -> Iterator[None]:
        """Operators may ask for what is refused."""
        try:
            yield
        except ServerError:
            pass

    # --- the engine

    @rule(who=st.integers(0, 1), fresh=st.booleans())
    def work(self, who: int, fresh: bool) -> None:
        if fresh:
            self.processes[who].fleet.refresh()
        self.processes[who].engine.work()

    @rule()
    def two_engines_at_once_equal_one(self) -> None:
        """The one that has listened longer decides, and the other adds nothing."""
        since = {p: p.engine.moment().listening_since for p in self.processes}
        plans = [self.planned(process) for process in sorted(since, key=lambda p: since[p])]
        self.carry_out(plans[0])
        after = self.everything()
        self.carry_out(plans[0])
        assert self.everything() == after, "twice is not once"
        self.carry_out(plans[1])
        assert self.everything() == after, "two engines are not one"

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        actions, before = self.planned(self.processes[who]), self.everything()
        for action in actions:
            with pytest.raises((Crash, RolloutMoved)):
                self.die_in(action, self.processes[who])
        assert self.everything() == before
        self.processes[who] = self.process()

    def die_in(self, action: Action, process: Process) -> None:
        with self.db.write() as session:
            execute(session, action, process.fleet.snapshot, now=self.now)
            raise Crash

    def planned(self, process: Process) -> list[Action]:
        process.fleet.refresh()
        moment = process.engine.moment()
        with self.db.read() as session:
            active = set(active_rollouts(session)) & set(self.ids(session))
        return [a for rollout in sorted(active) for a in process.engine.planned(rollout, moment)]

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            try:
                with self.db.write() as session:
                    snapshot = self.processes[0].fleet.snapshot
                    execute(session, action, snapshot, now=self.now)
            except RolloutMoved:
                pass

    def everything(self) -> list[Any]:
        with self.db.read() as session:
            found: list[Any] = []
            for table in TABLES:
                columns = table.__table__.c
                found.append(sorted(map(repr, session.execute(select(*columns)))))
            return found

    # --- devices

    @rule(n=st.integers(0, DEVICES - 1), who=st.integers(0, 1))
    def poll(self, n: int, who: int) -> None:
        device, process = self.devices[n], self.processes[who]
        process.fleet.refresh()
        device.ordered = process.told(device.name)
        with self.db.read() as session:
            device.told_seq = read_snapshot(session, self.remembered).revision
        self.check_order(device)

    @rule(who=st.integers(0, 1))
    def lease(self, who: int) -> None:
        before = self.in_flight()
        self.processes[who].desk.work()
        for rollout, flying in self.in_flight().items():
            assert flying <= max(2, before.get(rollout, 0))

    @rule(n=st.integers(0, DEVICES - 1), how=OUTCOMES)
    def obey(self, n: int, how: str) -> None:
        device = self.devices[n]
        entry = device.ordered
        if entry is None or device.state is S.PROBATION:
            device.state = S.HEALTHY
            return
        if entry.version == device.current and device.state is S.SHADOWING:
            device.state, device.candidate = S.HEALTHY, None
        if entry.version == device.current or device.failed == (entry.version, entry.attempt):
            return
        device.candidate, before = None, device.current
        if SHADOW in entry.conditions and how in ("well", "trial"):
            device.state, device.candidate = S.SHADOWING, entry.version
            return
        if how in ("well", "trial"):
            device.current = entry.version
            device.state = S.HEALTHY if how == "well" else S.PROBATION
            return
        device.candidate, device.failed = entry.version, (entry.version, entry.attempt)
        device.current = before
        tried = SHADOW in entry.conditions
        device.state = S.FAILED if how == "fails" or tried else S.ROLLED_BACK

    @rule(n=st.integers(0, DEVICES - 1), who=st.integers(0, 1), fresh=st.booleans())
    def report(self, n: int, who: int, fresh: bool) -> None:
        device, process = self.devices[n], self.processes[who]
        if fresh:
            process.fleet.refresh()
        device.seq += 1
        check_in = CheckIn(
            fleet="test-fleet",
            device=device.name,
            seq=device.seq,
            agent="0.1.0",
            directive_seq=device.told_seq,
            tuf={},
            models=(device.report(),),
        )
        process.take(VerifiedCheckIn(device.id, 1, check_in))

    @rule(hows=st.lists(OUTCOMES, min_size=1, max_size=3 * DEVICES), who=st.integers(0, 1))
    def rounds(self, hows: list[str], who: int) -> None:
        """One device after the other polls, obeys and reports; the engine looks, time goes by."""
        for turn, how in enumerate(hows):
            n = turn % DEVICES
            self.poll(n, who)
            self.obey(n, how)
            self.report(n, who, fresh=True)
            self.lease(who)
            self.work(who, fresh=True)
            self.time_passes(30)

    @rule(seconds=st.sampled_from([1, 30, 61, 400, 4000, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.passed += seconds
        self.registry.clock.advance(seconds=seconds)  # type: ignore[attr-defined]

    @rule(seconds=st.sampled_from([61, 90_000, -5, -4000]))
    def the_clock_jumps(self, seconds: int) -> None:
        """It was set; each engine looks at it soon after."""
        self.registry.clock.advance(seconds=seconds)  # type: ignore[attr-defined]
        for process in self.processes:
            process.engine.moment()

    def teardown(self) -> None:
        """Say what was reached, for `--hypothesis-show-statistics`; nothing stays denied."""
        with self.db.read() as session:
            for row in self.mine(session):
                event(f"{row.policy} {row.state} at wave {row.wave}")
        for version in ("1.1.0", "1.2.0"):
            with self.maybe(), self.db.write() as session:
                undeny(session, model="detector", version=version, actor=BY, now=self.now)

    # --- what holds

    def check_order(self, device: Device) -> None:
        """What a device is told is what an open wave, a baseline or what it took allows."""
        entry = device.ordered
        if entry is None:
            return
        with self.db.read() as session:
            group = baselines.get_group(session, self.group).id
            bad = select(QuarantineRow.id).where(
                QuarantineRow.group_id == group, QuarantineRow.version == entry.version
            )
            assert session.scalar(bad) is None, "a quarantined version was offered"
            version = read_snapshot(session, self.remembered).versions["detector", entry.version]
            assert version.denied is None, "a denied version was offered"
            if entry.rollout is None:
                return
            row = session.get_one(RolloutRow, int(entry.rollout[1:]))
            held = session.get(RolloutDeviceRow, (row.id, device.id))
            outcome = None if held is None else held.outcome
            assert row.state in ("running", "paused", "aborted")
            tried = SHADOW in entry.conditions
            if tried:
                assert outcome in ("shadow_leased", "shadowing"), outcome
                assert self.is_open(session, row, device, in_shadow=True), "outside the shadow"
                return
            if row.state != "running" or row.policy == "paced":
                assert outcome in ("leased", "switched", "healthy", "silent"), outcome
            if row.state != "aborted":
                assert self.is_open(session, row, device, in_shadow=False), "outside the open waves"

    def is_open(self, session: Any, row: RolloutRow, device: Device, *, in_shadow: bool) -> bool:
        """Say whether a wave took the device that switches it, or that tries the version there."""
        w, policy = RolloutWaveRow, stored_policy(row.document)
        found = session.scalars(select(w).where(w.rollout_id == row.id))
        opened = [o for o in found if policy.in_shadow(o.wave) is in_shadow]
        bucket = session.get_one(DeviceRow, device.id).bucket
        place = position(row.multiplier, row.offset, bucket)
        canaries = [canary for o in opened if (canary := policy.waves[o.wave].canary)]
        named = {name for canary in canaries for name in canary.devices}
        return any(place < o.threshold for o in opened) or device.name in named

    def in_flight(self) -> dict[int, int]:
        with self.db.read() as session:
            d = RolloutDeviceRow
            paced = {r.id for r in self.mine(session) if r.policy == "paced"}
            query = select(d.rollout_id, d.outcome).where(d.rollout_id.in_(paced))
            found: dict[int, int] = {}
            for rollout, outcome in session.execute(query):
                found[rollout] = found.get(rollout, 0) + (outcome in ("leased", "switched"))
            return found

    @invariant()
    def waves_never_shrink(self) -> None:
        with self.db.read() as session:
            for row in self.mine(session):
                wave, threshold = self.seen.get(row.id, (-1, 0))
                assert row.wave >= wave
                assert threshold <= row.threshold <= PRIME
                self.seen[row.id] = row.wave, row.threshold

    @invariant()
    def each_step_is_in_the_table_and_written_down_once(self) -> None:
        with self.db.read() as session:
            for row in self.mine(session):
                told = select(AuditEventRow).where(AuditEventRow.object == f"rollout/r{row.id}")
                for event in session.scalars(told):
                    if event.before is not None and event.after is not None:
                        before = RolloutState(event.before["state"])
                        after = RolloutState(event.after["state"])
                        assert before is after or may_follow(before, after)
                d = DecisionRow
                decided = select(d.generation).where(d.rollout_id == row.id).order_by(d.generation)
                numbers = list(session.scalars(decided))
                assert numbers == list(range(row.generation))

    @invariant()
    def a_completed_rollout_is_the_baseline_and_one_rolled_back_is_quarantined(self) -> None:
        with self.db.read() as session:
            group = baselines.get_group(session, self.group).id
            for row in self.mine(session):
                if row.state in ("rolling_back", "rolled_back"):
                    q = QuarantineRow
                    kept = select(q.id).where(q.group_id == group, q.version == row.version)
                    assert session.scalar(kept) is not None
                if row.state == "completed":
                    b = BaselineRow
                    base = select(b.id).where(b.group_id == group, b.version == row.version)
                    assert session.scalar(base) is not None


def explore(registry: Registry, *, examples: int, steps: int) -> None:
    class Bound(Machine):
        pass

    Bound.registry = registry
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    # Hours go by in a moment here: a count that is kept for a second may be hours old, and two
    # engines would see different fleets.
    with pytest.MonkeyPatch.context() as patch:
        for constant in ("COUNT_AGAIN_S", "COUNT_SHARE"):
            patch.setattr(engine, constant, 0.0)
        run_state_machine_as_test(Bound, settings=how)


@pytest.mark.timeout(600)
def test_invariants_hold(published: Registry) -> None:
    explore(published, examples=10, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(6))  # each with a database of its own, which only grows
def test_invariants_hold_for_long(published: Registry, part: int) -> None:
    explore(published, examples=50, steps=80)
