"""Carry out the machine's steps: each effect may be repeated after a crash at any point in it.

An effect changes files first and the journal after, so that the journal never says more than is
true. What the next step is, and what an outcome means, is `machine`'s and `outcomes`'s.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pilotwave_agent import conditions, desks, health, install, outcomes, slots
from pilotwave_agent.channel import Channel
from pilotwave_agent.clock import Clock
from pilotwave_agent.conditions import Hold
from pilotwave_agent.config import Config, RuntimeSettings
from pilotwave_agent.deltas import Deltas
from pilotwave_agent.disk import Disk, refusal_of
from pilotwave_agent.download import Downloader, Limits, Paused, missing_bytes
from pilotwave_agent.fold import Record, moved
from pilotwave_agent.journal import Journal
from pilotwave_agent.machine import (
    Confirm,
    Fetch,
    Memo,
    Moment,
    Move,
    Probe,
    Restore,
    Rules,
    Stage,
    Step,
    Switch,
    Trial,
    next_step,
)
from pilotwave_agent.mirrors import Mirrors
from pilotwave_agent.runtimes import engines
from pilotwave_agent.selftest import Place, TestLimits, prepare, run_selftest
from pilotwave_agent.slots import Layout
from pilotwave_agent.state import ModelSlot
from pilotwave_agent.tell.base import Release, Teller
from pilotwave_agent.tell.choose import tellers_of
from pilotwave_agent.world import World
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.messages import Installed
from pilotwave_protocol.states import ModelState, Reason

_LOOK_EVERY_S = 15.0
# a model in one of these states can be held back; what has begun to switch is finished
_GATES = {
    ModelState.FETCHING: conditions.FETCH,
    ModelState.STAGED: conditions.CHANGE,
    ModelState.TESTING: conditions.CHANGE,
}
_TRANSIENT = (Reason.DISK_FULL, Reason.DISK_READONLY)


def rules_of(config: Config) -> Rules:
    """Return the probation that a device's settings ask for."""
    probe = config.probe
    return Rules(config.probation_s, probe.interval_s, probe.failures)


@dataclass
class Effects:
    """The hands of one process that holds the work lock."""

    config: Config
    disk: Disk
    layout: Layout
    journal: Journal
    channel: Channel
    now: Callable[[], Moment]
    token: str = ""
    tell_progress: Callable[[str, int], None] = lambda model, percent: None
    tell_news: Callable[[], None] = lambda: None
    probed: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    parked: dict[str, RefusedError] = field(default_factory=dict)
    changed: bool = False
    look_around: Callable[[], World] = lambda: World(time.time())
    holds: dict[str, Hold] = field(default_factory=dict)
    look_at: float = 0.0
    mirrors: Mirrors = field(default_factory=Mirrors)

    def next(self) -> Step:
        """Name the next step."""
        self._hold_back()
        memo = Memo(frozenset({*self.parked, *self.holds}), self.probed, self.asked)
        return next_step(self.journal.state, self.now(), rules_of(self.config), memo)

    def _hold_back(self) -> None:
        """Hold the models back whose orders' conditions are not met, and say why."""
        state = self.journal.state
        for slot in state.models.values():
            order, gate = state.orders.get(slot.model), _GATES.get(slot.state)
            no = None
            if order and gate:
                no = self._held(slot, order.conditions, gate)
            if no is None:
                self.holds.pop(slot.model, None)
                if gate and (slot.reason or "").startswith("waiting_"):
                    self.record(outcomes.released(slot, self.now()))
                continue
            self.holds[slot.model] = no
            told = RefusedError(no.reason, no.sentence)
            self.record(outcomes.blocked(slot, told, self.now()))

    def _held(self, slot: ModelSlot, ordered: Mapping[str, Any], gate: str) -> Hold | None:
        """Return what the order or the device's own limits hold back, None if nothing is."""
        own = self.config.limits
        if not ordered and not own:
            return None
        world = self._world(slot)
        return conditions.hold(ordered, world, gate) or conditions.own_hold(own, world, gate)

    def _world(self, slot: ModelSlot) -> World:
        """Return the world as it was before this model's files began to fill the disk."""
        world = self.look_around()
        if world.disk_free_mb is None or slot.candidate is None:
            return world
        try:
            files = install.build_of(self.disk, self.layout, slot.candidate).variant.files
        except RefusedError:
            return world
        came = _total(files) - missing_bytes(self.disk, self.layout.blobs, files)
        return replace(world, disk_free_mb=world.disk_free_mb + (came >> 20))

    def record(self, record: Record | None) -> None:
        """Journal what has come about."""
        if record is not None:
            self.journal.append(record)
            self.changed = True
            self.tell_news()

    def carry_out(self, step: Step) -> bool:
        """Do one step and journal its outcome; False if there is nothing to do now."""
        try:
            match step:
                case Move(record):
                    self.record(record)
                case Fetch(model, budget_s):
                    self._fetch(self._slot(model), budget_s)
                case Stage(model):
                    self._stage(self._slot(model))
                case Trial(model):
                    self._try(self._slot(model))
                case Switch(model):
                    self._switch(self._slot(model))
                case Confirm(model, last):
                    self._confirm(self._slot(model), last=last)
                case Probe(model, last):
                    self._probe(self._slot(model), last=last)
                case Restore(model, ways):
                    self._restore(self._slot(model), ways)
                case _:
                    return False
        except RefusedError as no:
            self._park(step, no)
        return True

    def _slot(self, model: str) -> ModelSlot:
        return self.journal.state.slot(model)

    def _park(self, step: Step, no: RefusedError) -> None:
        """Leave a model where it is, say why, and do not try it again in this process."""
        slot = self._slot(getattr(step, "model"))  # noqa: B009 - a Move or Wait refuses nothing
        self.parked[slot.model] = no
        self.record(outcomes.blocked(slot, no, self.now()))

    def _candidate(self, slot: ModelSlot) -> tuple[Installed, install.Build]:
        if slot.candidate is None:
            raise RefusedError(Reason.INTERNAL, f"{slot.model}: the journal names no candidate")
        return slot.candidate, install.build_of(self.disk, self.layout, slot.candidate)

    # --- fetching and staging

    def _fetch(self, slot: ModelSlot, budget_s: float | None) -> None:
        _, build = self._candidate(slot)
        files = build.variant.files
        total = max(_total(files), 1)
        left = missing_bytes(self.disk, self.layout.blobs, files)
        if left and not self.token:
            # no news to anyone: the server has not answered since this agent started
            no = RefusedError(Reason.BLOB_DENIED, "waiting for the server to answer")
            self.parked[slot.model] = no
            return

        def came(count: int) -> None:
            nonlocal left
            left -= count
            self.tell_progress(slot.model, max(100 - left * 100 // total, 0))
            self._still_free_to_go(slot)

        fetcher = Downloader(
            disk=self.disk,
            blobs=self.layout.blobs,
            channel=self.channel,
            token=self.token,
            limits=Limits(
                keep_free_bytes=self.config.keep_free_mb << 20,
                max_rate=self.config.limits.max_rate,
            ),
            progress=came,
            shortcut=self._deltas(slot, files).fetch,
            mirrors=self.mirrors,
        )
        try:
            with _disk_says_no():
                fetcher.fetch(files, budget_s=budget_s)
        except Paused:
            return
        self.record(outcomes.fetched(slot, self.now()))

    def _deltas(self, slot: ModelSlot, files: Iterable[FileEntry]) -> Deltas:
        """Return the ways from the files that run now to those that are wanted."""
        before: dict[str, FileEntry] = {}
        if slot.current is not None:
            try:
                old = install.build_of(self.disk, self.layout, slot.current).variant.files
                before = {entry.path: entry for entry in old}
            except RefusedError:
                pass  # the whole files will do
        bases = {f.sha256: before[f.path] for f in files if f.path in before}
        return Deltas(bases, self.config.delta_memory_mb << 20, self.config.deltas)

    def _still_free_to_go(self, slot: ModelSlot) -> None:
        """Pause a long fetch when, say, the charger was pulled."""
        now, order = self.now(), self.journal.state.orders.get(slot.model)
        if order is None or now.uptime < self.look_at:
            return
        self.look_at = now.uptime + _LOOK_EVERY_S
        if self._held(slot, order.conditions, conditions.FETCH):
            raise Paused

    def _stage(self, slot: ModelSlot) -> None:
        version, build = self._candidate(slot)
        self._prepare_desks(slot.model)
        try:
            with _disk_says_no():
                install.stage(self.disk, self.layout, slot.model, version, build)
        except RefusedError as no:
            if no.reason is not Reason.BLOB_MISMATCH:
                raise
            self.record(outcomes.unstageable(slot, no, self.now()))
            return
        self.record(outcomes.staged(slot, self.now()))

    def _prepare_desks(self, model: str) -> None:
        """Make the folder for applications; where it cannot be made, they serve on unheard."""
        with contextlib.suppress(OSError):
            desks.prepare(self.layout.live, model, self.config.apps_group)

    # --- trying

    def _try(self, slot: ModelSlot) -> None:
        version, _ = self._candidate(slot)
        try:
            with _disk_says_no():
                figures = self._selftest(slot.model, version)
        except RefusedError as no:
            if no.reason in _TRANSIENT:
                raise
            self.record(outcomes.failed(slot, no, self.now()))
            return
        self.record(outcomes.passed(slot, figures, self.now()))

    def _selftest(self, model: str, version: Installed) -> str:
        variant = install.build_of(self.disk, self.layout, version).variant
        config, own = self.config, self.config.data_dir
        limits = TestLimits(
            config.selftest_timeout_s, config.selftest_memory_mb, config.selftest_cpu_s
        )
        settings = config.runtimes.get(variant.runtime, RuntimeSettings())
        place = Place(own=own, cache=own / engines.FOLDER)
        folder = self.layout.version(model, version)
        if variant.runtime == "tensorrt":
            prepare(folder, variant, settings, place)
        return str(run_selftest(folder, variant, limits, settings, place))

    def _probe(self, slot: ModelSlot, *, last: bool) -> None:
        current = slot.current
        if current is None:
            return
        subject = self._subject(slot.model, current, ModelState.PROBATION)
        watch = slot.watch
        no = health.ask(
            self.config.probe,
            subject,
            lambda: self._selftest(slot.model, current),
            live=self.layout.live,
            since=health.Since(watch.started, watch.restarts) if watch else None,
        )
        now = self.now()
        self.probed[slot.model] = now.uptime
        order = self.journal.state.orders.get(slot.model)
        rules = rules_of(self.config)
        self.record(outcomes.probed(slot, no, now, rules, last=last, order=order))

    # --- switching

    def _switch(self, slot: ModelSlot) -> None:
        version, _ = self._candidate(slot)
        if not install.intact(self.disk, self.layout, slot.model, version, deep=False):
            self.relink(slot)
            self.record(outcomes.lost(slot, self.now()))
            return
        after = _previous_in(outcomes.switched(slot, self.now()))
        tellers = self._tellers(slot.model)
        if not tellers:
            with _disk_says_no():
                self._point(slot.model, version, after)
            self._switched(slot, version)
            return
        within_s = max(teller.within_s for teller in tellers)
        try:
            slot = self._begin_to_tell(slot, within_s)
            release = self._release(slot, version, ModelState.PROBATION)
            with _disk_says_no():
                for teller in tellers:
                    teller.stage(release)
                self._point(slot.model, version, after)
                for teller in tellers:
                    teller.activate(release)
        except RefusedError as no:
            if no.reason in _TRANSIENT:
                raise
            self.record(outcomes.not_taken(slot, no, self.now()))
            return
        self.record(outcomes.told(slot, self.now(), within_s))

    def _begin_to_tell(self, slot: ModelSlot, within_s: float) -> ModelSlot:
        """Journal that this boot's try begins, so that a version that takes the machine down while
        it is loaded is counted, and taken back."""
        now, telling = self.now(), slot.telling
        if telling is None or telling.boot != now.boot:
            if telling and telling.boots >= rules_of(self.config).boots:
                words = f"the device restarted {telling.boots} times while it was to be taken"
                raise RefusedError(Reason.APP_REFUSED, words)
            self.record(outcomes.telling(slot, now, within_s))
        return self._slot(slot.model)

    def _switched(self, slot: ModelSlot, version: Installed) -> None:
        subject = self._subject(slot.model, version, ModelState.PROBATION)
        restarts = health.restarts(self.config.probe, subject)
        self.record(outcomes.switched(slot, self.now(), restarts))

    def _confirm(self, slot: ModelSlot, *, last: bool) -> None:
        version, _ = self._candidate(slot)
        now, telling = self.now(), slot.telling
        self.asked[slot.model] = now.uptime
        release = self._release(slot, version, ModelState.PROBATION)
        since = telling.begun if telling else now.uptime
        try:
            tellers = self._tellers(slot.model)
            if all(teller.confirm(release, since) for teller in tellers):
                self._switched(slot, version)
            elif last:
                within_s = telling.within_s if telling else 0.0
                words = f"no application said within {within_s:g} s that it took {version.version}"
                raise RefusedError(Reason.APP_SILENT, words)
        except RefusedError as no:
            self.record(outcomes.not_taken(slot, no, self.now()))

    def _restore(self, slot: ModelSlot, ways: tuple[Installed, ...]) -> None:
        for way in ways:
            if not install.intact(self.disk, self.layout, slot.model, way, deep=True):
                continue
            with _disk_says_no():
                self._point(slot.model, way, outcomes.behind(slot, way))
            note = self._tell_back(slot, way)
            subject = self._subject(slot.model, way, ModelState.ROLLED_BACK)
            restarts = health.restarts(self.config.probe, subject)
            self.record(outcomes.restored(slot, way, note, self.now(), restarts))
            return
        self.relink(slot)
        self.record(outcomes.nowhere_to_go(slot, self.now()))

    def _point(self, model: str, current: Installed, previous: Installed | None) -> None:
        slots.point(self.disk, self.layout, model, "previous", previous)
        slots.point(self.disk, self.layout, model, "current", current)

    def relink(self, slot: ModelSlot) -> None:
        """Make a model's links say what the journal says."""
        if slot.current is not None:
            with _disk_says_no():
                self._point(slot.model, slot.current, slot.previous)

    def _subject(self, model: str, version: Installed, state: ModelState) -> health.Subject:
        path = self.layout.version(model, version)
        number = self._slot(model).number_of(version)
        return health.Subject(model, version.version, path, str(state), number)

    def _tellers(self, model: str) -> list[Teller]:
        return tellers_of(self.config.tell, model, self.disk, self.layout.live)

    def _release(self, slot: ModelSlot, version: Installed, state: ModelState) -> Release:
        build = install.build_of(self.disk, self.layout, version)
        others = (slot.current, slot.previous, slot.last_healthy)
        return Release(
            slot.model,
            version.version,
            version.variant,
            slot.number_of(version),
            self.layout.version(slot.model, version),
            build.variant.entrypoint,
            str(state),
            tuple(slot.number_of(v) for v in others if v),
        )

    def _tell_back(self, slot: ModelSlot, way: Installed) -> str:
        """Tell the application that an earlier version is current again; what it minds, it says in
        a note: the links are right already, and nothing else is left to do."""
        good = self._release(slot, way, ModelState.ROLLED_BACK)
        notes = []
        for teller in reversed(self._tellers(slot.model)):
            try:
                bad = None
                if slot.current:
                    bad = self._release(slot, slot.current, ModelState.ROLLED_BACK)
                with _disk_says_no():
                    teller.rollback(bad, good)
            except RefusedError as no:
                notes.append(f" (told so, {no.sentence})")
        return "".join(notes)

    # --- at start and at the end

    def reconcile(self) -> None:
        """After a start: see that links and files are what the journal says."""
        for slot in list(self.journal.state.models.values()):
            if slot.state in (ModelState.SWITCHING, ModelState.ROLLING_BACK):
                continue  # between two versions; the step itself finishes it
            self.relink(slot)
            self._prepare_desks(slot.model)
            if slot.current is None or slot.damaged:
                continue
            if not install.intact(self.disk, self.layout, slot.model, slot.current, deep=True):
                self.record(
                    moved(
                        slot,
                        slot.state,
                        at=self.now().wall,
                        event="damaged",
                        about=slot.current,
                        damaged=True,
                        reason=Reason.BLOB_MISMATCH,
                        detail=f"{slot.current.version} is damaged on disk",
                    )
                )

    def clear(self) -> None:
        """Remove what no version of use needs; a disk that says no is asked another time."""
        try:
            install.clear(self.disk, self.layout, self.journal.state)
            kept = set(self.disk.names(self.layout.blobs))
            engines.clear(self.config.data_dir / engines.FOLDER, kept)
        except OSError:
            return


class _disk_says_no:
    """Turn what the file system raises inside into a `RefusedError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, e: BaseException | None, trace: object) -> None:
        if isinstance(e, OSError):
            raise refusal_of(e) from e


def _total(files: Iterable[FileEntry]) -> int:
    """Return how many bytes different files have together."""
    return sum({f.sha256: f.size for f in files}.values())


def _previous_in(record: Record) -> Installed | None:
    found = record["set"]["previous"]
    return Installed(**found) if found else None


def moment(floor: float, clock: Clock) -> Moment:
    """Return now; the wall clock is held against the time floor."""
    return Moment(max(clock.wall(), floor), clock.uptime(), clock.boot())
