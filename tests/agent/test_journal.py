"""The journal: what is written is read back, whatever was torn off or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent.core import journal
from pilotwave_agent.core import records as core_records
from pilotwave_agent.core.journal import Journal, read_state
from pilotwave_agent.core.state import DeviceState, ModelSlot
from pilotwave_agent.host.disk import Disk
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState

V1 = Installed("1.0.0", "1" * 64, "onnx", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "log"


def opened(path: Path) -> Journal:
    return Journal(Disk(), path)


def fetching(slot: ModelSlot) -> core_records.Record:
    state = ModelState.FETCHING
    return core_records.moved(
        slot, state, at=5.0, event="fetching", about=V1, candidate=V1, attempt=3
    )


def some_records() -> list[core_records.Record]:
    slot = ModelSlot("detector")
    memory = AntiRollback(7, "d" * 64, {"detector": 4}, frozenset({"2" * 64}))
    return [
        core_records.learned(memory, {"root": 1, "timestamp": 9, "snapshot": 9}, at=1.0),
        core_records.refused("wrong_key", "no key of ours", raw_digest="a" * 64, at=2.0),
        fetching(slot),
        core_records.noticed("journal_damaged", at=6.0, detail="once"),
        core_records.acked(1, at=7.0),
    ]


def states_of(records: list[core_records.Record]) -> list[DeviceState]:
    states = [DeviceState()]
    for record in records:
        states.append(core_records.apply(states[-1], record))
    return states


def test_no_journal_is_an_empty_state(path: Path) -> None:
    assert read_state(path) == DeviceState()


def test_what_is_appended_is_read_back(path: Path) -> None:
    made = opened(path)
    for record in some_records():
        made.append(record)
    assert read_state(path) == made.state == states_of(some_records())[-1]


def test_a_journal_torn_at_any_byte_is_the_state_before_the_torn_line(path: Path) -> None:
    lines = [journal.line_of(record) for record in some_records()]
    whole, states = b"".join(lines), states_of(some_records())
    path.parent.mkdir()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        ends = [len(b"".join(lines[:n])) for n in range(len(lines) + 1)]
        expected = states[max(n for n, end in enumerate(ends) if end <= size)]
        assert read_state(path) == expected
        again = opened(path)
        assert again.state == expected
        after = again.append(core_records.noticed("restarted", at=8.0))
        assert read_state(path) == after, size


def test_a_line_damaged_in_the_middle_costs_only_itself(path: Path) -> None:
    records = some_records()
    lines = [journal.line_of(record) for record in records]
    lines[1] = lines[1].replace(b"wrong_key", b"wrong_kex")
    path.parent.mkdir()
    path.write_bytes(b"".join(lines))
    found = opened(path)
    assert found.damaged == 1
    assert found.state.memory.yanked == frozenset({"2" * 64})
    assert found.state.slot("detector").candidate == V1
    assert opened(path).damaged == 0, "it was rewritten without the damage"


def test_garbage_at_the_end_is_cut_off(path: Path) -> None:
    opened(path).append(some_records()[0])
    good = path.read_bytes()
    path.write_bytes(good + b"\0" * 4096 + b"\nnot a line\n")
    assert opened(path).state == states_of(some_records()[:1])[-1]
    assert path.read_bytes() == good


def test_a_long_journal_is_compacted_and_says_the_same(path: Path) -> None:
    made = opened(path)
    for n in range(2000):
        made.append(core_records.noticed("tick", at=float(n), detail="x" * 100))
    assert path.stat().st_size <= journal.COMPACT_BYTES * 2
    assert read_state(path) == made.state
    assert made.state.next_event == 2001


class FullDisk(Disk):
    """A disk on which `room` more bytes can be written."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: bytes | memoryview) -> None:
        super().write(fd, bytes(data)[: max(self.room, 0)])
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")


def test_a_line_that_found_no_room_leaves_no_trace(path: Path) -> None:
    made = Journal(FullDisk(150), path)

    def append_all() -> None:
        for record in some_records():
            made.append(record)

    with pytest.raises(OSError, match="No space"):
        append_all()
    before = made.state
    assert read_state(path) == before
    assert made._disk.size(path) == made._size


def test_a_compaction_that_finds_no_room_loses_nothing(path: Path) -> None:
    made = opened(path)
    while made._size < journal.COMPACT_BYTES - 500:
        made.append(core_records.noticed("tick", at=1.0, detail="x" * 300))
    made._disk = FullDisk(1000)
    made.append(core_records.noticed("last", at=1.0, detail="x" * 400))
    assert read_state(path) == made.state
    assert made.state.events[-1].kind == "last"


class TestSpool:
    """Events wait for the server; when there are too many, the least telling go first."""

    def test_the_oldest_of_low_value_goes_first(self) -> None:
        state = DeviceState()
        state = core_records.apply(state, core_records.noticed("failed", at=0.0))
        state = core_records.apply(state, core_records.noticed("fetching", at=0.0))
        for _ in range(core_records.MAX_SPOOL):
            state = core_records.apply(state, core_records.noticed("healthy", at=0.0))
        kinds = [e.kind for e in state.events]
        assert len(kinds) == core_records.MAX_SPOOL
        assert "fetching" not in kinds
        assert state.dropped == 2
        assert state.events[-1].id == core_records.MAX_SPOOL + 2

    def test_acknowledged_events_go(self) -> None:
        state = states_of([core_records.noticed("a", at=0.0), core_records.noticed("b", at=0.0)])[
            -1
        ]
        state = core_records.apply(state, core_records.acked(1, at=0.0))
        assert [e.kind for e in state.events] == ["b"]

    def test_a_journal_that_was_lost_numbers_its_events_above_what_the_server_knows(self) -> None:
        state = states_of([core_records.noticed("a", at=0.0), core_records.noticed("b", at=0.0)])[
            -1
        ]
        state = core_records.apply(state, core_records.acked(40, at=0.0))
        assert [(e.id, e.kind) for e in state.events] == [(41, "a"), (42, "b")]
        assert core_records.apply(state, core_records.noticed("c", at=0.0)).events[-1].id == 43

    def test_the_same_refusal_is_told_once(self) -> None:
        no = [core_records.refused("wrong_key", "no", raw_digest=str(n), at=0.0) for n in range(3)]
        assert len(states_of(no)[-1].events) == 1


class TestMemory:
    """What must never be forgotten only grows, whatever comes in whatever order."""

    def test_floors_and_yanks_are_merged(self) -> None:
        first = AntiRollback(5, "a", {"x": 3, "y": 1}, frozenset({"1" * 64}))
        second = AntiRollback(4, "b", {"x": 2, "z": 9}, frozenset({"2" * 64}))
        state = states_of([core_records.learned(m, {}, at=0.0) for m in (first, second)])[-1]
        assert state.memory.directive_seq == 5
        assert state.memory.set_digest == "a"
        assert state.memory.floors == {"x": 3, "y": 1, "z": 9}
        assert state.memory.yanked == {"1" * 64, "2" * 64}
