"""No power cut, at any moment of the agent's work, costs the device its model or its memory.

Each story is recorded once; `medium` says what a cut at each of its moments may leave. In every
such state all that had been promised must still be there: journal, floors, yanks, TUF versions,
check-in numbers. A sample (all of them with `slow`) is laid out on a real disk, and the real agent
must come from it to the one version that is ordered.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pilotwave_agent import identity
from pilotwave_agent.check_in.numbering import Sequence
from pilotwave_agent.core import records
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_agent.version_folder import intact
from pilotwave_agent.work import Job, work
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState
from tests.agent.powercut import Killed, Run, lay_out, moved_to, some
from tests.agent.recorder import Plain
from tests.peers.device import Device
from tests.peers.registry import Registry, example

pytestmark = pytest.mark.long

FAILING = ProbeSettings("exec", ("false",), interval_s=0.1, failures=1)


@dataclass
class Scene:
    """A device with its registry and two published versions."""

    registry: Registry
    device: Device
    old: Entry
    new: Entry
    ends_on: frozenset[str] = frozenset({"1.0.0"})

    def runs(self, entry: Entry) -> None:
        """Have a version running and healthy."""
        self.registry.order(entry)
        self.device.work(refresh=True, boot=True)
        assert self.device.slot().state is ModelState.HEALTHY

    def record(self, disk: Run | None = None) -> Run:
        """Record one run of the work, from the directive's arrival on."""
        run = disk or Run(self.device.config.data_dir)
        run.make_dirs(self.device.layout.inbox.parent)
        run.write_atomic(self.device.layout.inbox, self.registry.directive)
        work(self.device.config, Job(token="token", refresh=True, boot=True), disk=run)
        return run


@pytest.fixture
def scene(registry: Registry, device: Device) -> Scene:
    old = registry.publish("detector", "1.0.0", example("1.0.0"))
    new = registry.publish("detector", "1.1.0", example("1.1.0"))
    return Scene(registry, device, old, new)


def install(scene: Scene) -> None:
    """The first version of a device that has none."""
    scene.registry.order(scene.old)


def switch(scene: Scene) -> None:
    """From one version to the next, and the one before that is cleared away."""
    scene.runs(scene.old)
    scene.registry.order(scene.new)
    scene.ends_on = frozenset({"1.1.0"})


def rollback(scene: Scene) -> None:
    """The next version fails its probation: back."""
    switch(scene)
    scene.device.set(probe=FAILING)
    # a probation that the power cut short begins anew, and is passed this time
    scene.ends_on = frozenset({"1.0.0", "1.1.0"})


def yank(scene: Scene) -> None:
    """The publisher takes back what runs."""
    scene.runs(scene.old)
    scene.runs(scene.new)
    scene.registry.yank("detector", "1.1.0")
    scene.registry.order(scene.old)


@pytest.fixture(params=[install, switch, rollback, yank], ids=lambda story: story.__name__)
def story(request: pytest.FixtureRequest, scene: Scene) -> Scene:
    begin: Callable[[Scene], None] = request.param
    begin(scene)
    return scene


def test_a_power_cut_takes_back_no_promise(story: Scene) -> None:
    run = story.record()
    run.finish()
    assert run.broken_promises() == []
    assert run.moments > 40
    assert len(run.states) > 100


def recovers(device: Device, wanted: frozenset[str]) -> None:
    """See a device come to rest on exactly one whole version, a wanted one."""
    device.set(probe=ProbeSettings("exec", ("true",), interval_s=0.1))
    done = device.work(disk=Plain(), refresh=True, boot=True)
    slot = device.slot()
    assert done.retry is None, done
    assert slot.current is not None
    assert slot.current.version in wanted
    assert device.layout.version("detector", slot.current).name == device.current()
    assert intact(Disk(), device.layout, "detector", slot.current, deep=True)
    assert slot.state in (ModelState.HEALTHY, ModelState.ROLLED_BACK), slot


def recover_from(run: Run, scene: Scene, share: int) -> None:
    left = scene.device.config.data_dir.parent / "left"
    for tree in some(run.states, share):
        lay_out(tree, left)
        recovers(moved_to(scene.device, left), scene.ends_on)


def test_the_agent_recovers_from_what_a_power_cut_leaves(story: Scene) -> None:
    run = story.record()
    recover_from(run, story, share=len(run.states) // 12)


def test_a_removal_that_a_power_cut_breaks_off_is_finished(scene: Scene) -> None:
    """In each state that is left: the whole model, or nothing of it, and nothing in the end."""
    scene.runs(scene.old)
    scene.registry.yank("detector", "1.1.0")
    scene.registry.seq += 1
    scene.registry.directive = scene.registry.sign_directive((), remove=("detector",))
    run = scene.record()
    run.finish()
    assert run.broken_promises() == []
    left = scene.device.config.data_dir.parent / "left"
    for tree in some(run.states, len(run.states) // 24):
        lay_out(tree, left)
        device = moved_to(scene.device, left)
        before = device.slot()
        if before.current is not None:
            assert intact(Disk(), device.layout, "detector", before.current, deep=True)
        done = device.work(disk=Plain(), refresh=True, boot=True)
        assert done.retry is None, done
        assert not device.state.models
        assert not device.state.leaving
        assert device.state.memory.has_yanked("detector", scene.new.sha256)
        assert [*(left / "models").iterdir(), *(left / "blobs").iterdir()] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_agent_recovers_from_all_that_a_power_cut_leaves(story: Scene) -> None:
    run = story.record()
    recover_from(run, story, share=1)


def kill_and_cut(scene: Scene, moments: range, share: int) -> int:
    """Kill the process at each of these moments; the next one goes on with the same page cache.
    Return how many were tried."""
    home = scene.device.config.data_dir
    spare, tried = home.parent / "spare", 0
    for moment in moments:
        shutil.rmtree(spare, ignore_errors=True)
        shutil.copytree(home, spare, symlinks=True)
        there = replace(scene, device=moved_to(scene.device, spare))
        first = Run(spare, dies_at=moment)
        try:
            there.record(first)
            break
        except Killed:
            second = Run(spare, after=first)
        there.record(second)
        second.finish()
        assert second.broken_promises() == [], moment
        for tree in some(second.states, share):
            lay_out(tree, home.parent / "left")
            recovers(moved_to(scene.device, home.parent / "left"), scene.ends_on)
        tried += 1
    return tried


def test_a_killed_process_and_a_power_cut_later_take_back_no_promise(story: Scene) -> None:
    """What is found in the page cache need not be on disk: whoever relies on it sees to it."""
    tried = kill_and_cut(story, range(5, 200, 19), share=10**9)
    assert tried >= 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_kill_at_each_moment_and_a_power_cut_later_take_back_no_promise(story: Scene) -> None:
    assert kill_and_cut(story, range(1, 1000), share=200) > 40


def some_memory(seq: int) -> AntiRollback:
    return AntiRollback(seq, "d" * 64, {"detector": seq}, frozenset({f"{seq:064x}"}))


def test_a_power_cut_around_compaction_keeps_every_record(tmp_path: Path) -> None:
    run = Run(tmp_path)
    path = tmp_path / "journal" / "log"
    made, compactions = Journal(run, path), 0
    long = "x" * 400
    inode = path.stat().st_ino
    for n in range(1, 600):
        if n % 50 == 0:
            made.append(records.learned(some_memory(n), {"root": 1, "timestamp": n}, at=float(n)))
        made.append(records.noticed("journal_damaged", at=float(n), detail=long))
        inode, known = path.stat().st_ino, inode
        compactions += inode != known
        if compactions == 2:
            break
    made.append(records.acked(3, at=1000.0))
    run.finish()
    assert compactions == 2
    assert run.broken_promises() == []


def test_check_in_numbers_are_used_once_whenever_the_power_goes(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "seq.json"
    path.parent.mkdir()
    run = Run(tmp_path)
    first = Sequence(run, path)
    used = [first.take() for _ in range(600)]
    run.finish()
    assert run.broken_promises() == []
    for tree in run.states:
        lay_out(tree, tmp_path / "left")
        again = Sequence(Plain(), tmp_path / "left" / "identity" / "seq.json").take()
        sure = run.states[tree].kept["identity/seq.json"]
        assert again > 257 * (sure - 1), (again, sure)
    assert used == sorted(set(used))


@pytest.mark.parametrize("dies_at", range(2, 12))
def test_the_server_never_knows_a_key_that_a_power_cut_can_take(
    tmp_path: Path, dies_at: int
) -> None:
    home, left = Layout(tmp_path / "cam"), Layout(tmp_path / "left")
    home.root.mkdir()
    first = Run(home.root, dies_at=dies_at)
    with contextlib.suppress(Killed):
        identity.make_key(first, home.key)
    second = Run(home.root, after=first)
    key = identity.make_key(second, home.key)
    second.states.clear()
    second.finish()
    for tree in second.states:
        lay_out(tree, left.root)
        assert identity.public_hex(identity.load_key(left.key)) == identity.public_hex(key)


class Forgetful(Run):
    """Leaves one kind of fsync out: the model must notice, or it proves nothing."""

    def __init__(self, root: Path, forgets: str) -> None:
        super().__init__(root)
        self.forgets = forgets

    def sync_fd(self, fd: int) -> None:
        if self.forgets not in os.readlink(f"/proc/self/fd/{fd}"):
            super().sync_fd(fd)

    def sync_dir(self, path: Path) -> None:
        if self.forgets != f"{path.name}/":
            super().sync_dir(path)


@pytest.mark.parametrize("forgets", ["journal/log", "journal/", "trust/.tuf.json", "trust/"])
def test_an_fsync_left_out_is_noticed(scene: Scene, forgets: str) -> None:
    install(scene)
    run = scene.record(Forgetful(scene.device.config.data_dir, forgets))
    run.finish()
    assert run.broken_promises()
