"""What systemd starts: which agent it becomes, whatever a version, a kill or a power cut left.

Agents here are shell scripts that write their names into a file: the launcher starts any program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.self_update import launch, slots
from pilotwave_agent.self_update.launch import (
    INSTALLED,
    MOST_ENDS,
    MOST_STARTS,
    BadTrial,
    Kept,
    Trial,
    read_kept,
    read_trial,
    write_kept,
    write_trial,
)

OLD, NEW = "1.0.0-aaaaaaaa-any", "1.1.0-bbbbbbbb-any"


class Board:
    """A data folder with versions of an agent, none of which is more than a script."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.said = root / "said"
        self.model = self.data / "models" / launch.MODEL
        self.model.mkdir(parents=True)
        self.installed = root / "installed.sh"
        self.program(self.installed, INSTALLED)
        for name in (OLD, NEW):
            self.version(name)

    def program(self, path: Path, name: str, more: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        words = f'echo "{name} $PILOTWAVE_SLOT $PILOTWAVE_PASSED_OVER" "$@" >> {self.said}'
        path.write_text(f"#!/bin/sh\n{words}\n{more}\n")
        path.chmod(0o755)

    def version(self, name: str, more: str = "") -> None:
        self.program(self.model / "versions" / name / "agent.sh", name, more)
        about = self.model / "about" / f"{name}.json"
        about.parent.mkdir(exist_ok=True)
        about.write_text(json.dumps({"entrypoint": "agent.sh", "runtime": "command"}))

    def link(self, link: str, name: str) -> None:
        path = self.model / link
        path.unlink(missing_ok=True)
        path.symlink_to(f"versions/{name}")

    def trial(self, **changes: object) -> None:
        made = Trial(NEW, 7, OLD, within_s=60.0)
        write_trial(self.data, replace(made, **changes))  # type: ignore[arg-type]  # fields of it

    def words(self) -> list[str]:
        own = [sys.executable, "-I", launch.__file__, str(self.data), str(self.installed)]
        return [*own, "--", "run", "--config", "x y"]

    def start(self, words: Sequence[str] = ()) -> list[str]:
        """Start it, as systemd does; return what was started, by its own words."""
        self.said.unlink(missing_ok=True)
        done = subprocess.run(
            words or self.words(), capture_output=True, text=True, timeout=60, check=False
        )
        self.stderr, self.status = done.stderr, done.returncode
        return self.said.read_text().split("\n")[0].split(" ") if self.said.exists() else []


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_without_a_version_it_becomes_the_installed_agent(board: Board) -> None:
    assert board.start() == [INSTALLED, INSTALLED, "", "run", "--config", "x", "y"]


def test_it_becomes_the_version_that_the_link_names(board: Board) -> None:
    board.link("current", NEW)
    assert board.start()[:2] == [NEW, NEW]


def test_a_trial_is_started_so_often_and_then_what_ran_before(board: Board) -> None:
    board.link("current", NEW)
    board.link("previous", INSTALLED)  # only the note counts
    board.trial()
    for n in range(MOST_STARTS):
        assert board.start()[:2] == [NEW, NEW]
        assert slots.trial_of(board.data, NEW) == Trial(NEW, 7, OLD, 60.0, starts=n + 1)
    assert board.start()[:3] == [OLD, OLD, NEW]
    assert f"started {MOST_STARTS} times and proved nothing" in board.stderr
    assert board.start()[:3] == [OLD, OLD, NEW]


def test_a_note_of_another_version_counts_for_nothing(board: Board) -> None:
    """The power went before the link was moved, or after it was moved back."""
    board.link("current", OLD)
    board.trial()
    for _ in range(MOST_STARTS + 2):
        assert board.start()[:2] == [OLD, OLD]
    assert slots.trial_of(board.data, NEW) == Trial(NEW, 7, OLD, 60.0)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"[]", b"\xff\0", b'{"folder": 1}', b'{"folder": "x", "number": 1}'),
        b'{"folder": "x", "number": 1, "back": "../../../tmp/x", "within_s": 1}',
        b'{"folder": "x", "number": 1, "back": "", "within_s": 1}',
        b'{"folder": "x", "number": "1", "back": "y", "within_s": 1}',
        b'{"folder": "x", "number": 1, "back": "y", "within_s": 1, "starts": -5}',
    ],
)
def test_a_note_that_cannot_be_read_keeps_the_unproved_one_from_starting(
    board: Board, raw: bytes
) -> None:
    board.link("current", NEW)
    board.link("previous", OLD)
    launch.trial_path(board.data).parent.mkdir()
    launch.trial_path(board.data).write_bytes(raw)
    with pytest.raises(BadTrial):
        read_trial(board.data)
    assert board.start()[:3] == [OLD, OLD, NEW]


def test_what_a_later_agent_adds_to_the_note_is_passed_over(board: Board) -> None:
    board.link("current", NEW)
    plain = {**vars(Trial(NEW, 7, OLD, 60.0)), "mood": "good"}
    launch.trial_path(board.data).parent.mkdir()
    launch.trial_path(board.data).write_text(json.dumps(plain))
    assert board.start()[:2] == [NEW, NEW]


def test_a_disk_that_counts_nothing_starts_what_ran_before(board: Board) -> None:
    """A full or read-only disk: a version whose starts cannot be counted could loop for ever."""
    board.link("current", NEW)
    board.trial()
    aside = launch.trial_path(board.data).with_name(".trial.json.launch")
    aside.mkdir()  # no file can be made there
    assert board.start()[:3] == [OLD, OLD, NEW]
    assert "cannot be counted" in board.stderr
    aside.rmdir()
    assert board.start()[:2] == [NEW, NEW]


def test_a_program_that_is_gone_is_passed_over_and_that_is_noted(board: Board) -> None:
    board.link("current", NEW)
    board.link("previous", OLD)
    board.trial()
    (board.model / "versions" / NEW / "agent.sh").unlink()
    assert board.start()[:3] == [OLD, OLD, NEW]
    assert "its program is not there" in slots.verdict(board.data, NEW)
    (board.model / "versions" / OLD / "agent.sh").write_text("no program")
    assert board.start()[:3] == [INSTALLED, INSTALLED, NEW]
    board.installed.unlink()
    assert board.start() == []
    assert (board.status, "installed agent cannot be started" in board.stderr) == (1, True)


def test_a_trial_that_hangs_is_ended_from_outside(board: Board) -> None:
    board.version(NEW, "exec sleep 300")
    board.link("current", NEW)
    board.trial(within_s=0.5)
    began = time.monotonic()
    assert board.start()[:2] == [NEW, NEW]
    assert board.status == -signal.SIGKILL
    assert time.monotonic() - began < 30
    assert "proved nothing; it was ended" in slots.verdict(board.data, NEW)
    assert board.start()[:3] == [OLD, OLD, NEW]


def test_one_that_has_proved_itself_in_time_is_left_alone(board: Board) -> None:
    board.version(NEW, "exec sleep 2")
    board.link("current", NEW)
    board.trial(within_s=0.5)
    with subprocess.Popen(board.words()) as process:
        while (trial := slots.trial_of(board.data, NEW)) is None or not trial.starts:
            time.sleep(0.01)
        slots.take(Disk(), Layout(board.data), trial)
        assert process.wait(60) == 0


def test_nothing_is_left_behind_when_a_trial_ends(board: Board) -> None:
    """The process that watches it goes with it; `capture_output` would wait for it."""
    board.link("current", NEW)
    board.trial(within_s=3600.0)
    began = time.monotonic()
    assert board.start()[:2] == [NEW, NEW]
    assert time.monotonic() - began < 30


# --- a version that was kept, and ends again and again later


def test_a_kept_version_that_ends_too_often_gives_way_to_the_one_that_is_allowed(
    board: Board,
) -> None:
    board.link("current", NEW)
    board.link("previous", "0.9.0-cccccccc-any")  # only the note counts
    write_kept(board.data, Kept(NEW, OLD))
    for _ in range(MOST_ENDS):
        assert board.start()[:2] == [NEW, NEW]
    assert board.start()[:3] == [OLD, OLD, NEW]
    assert f"it ended {MOST_ENDS} times within 60 minutes" in board.stderr
    kept = read_kept(board.data)
    assert kept is not None
    write_kept(board.data, replace(kept, boot="another"))
    assert board.start()[:3] == [OLD, OLD, NEW]  # a restart of the machine changes nothing


@pytest.mark.parametrize(
    "changes",
    [
        {"boot": "another"},  # a device that is switched off without a word each evening
        {"starts": tuple(float(n) - 2 * launch.ENDS_WITHIN_S for n in range(MOST_ENDS))},
        {"starts": ()},  # it ended well: `slots.ended_well`
        {"folder": OLD, "failed": "of another version"},
        {"back": NEW},
    ],
)
def test_what_is_no_crash_loop_counts_for_nothing(board: Board, changes: dict[str, object]) -> None:
    board.link("current", NEW)
    write_kept(board.data, Kept(NEW, OLD))
    for _ in range(MOST_ENDS):
        assert board.start()[:2] == [NEW, NEW]
    kept = read_kept(board.data)
    assert kept is not None
    write_kept(board.data, replace(kept, **changes))  # type: ignore[arg-type]  # fields of it
    assert board.start()[:2] == [NEW, NEW]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"folder": "x"}', b'{"folder":1,"back":"x"}'])
def test_a_damaged_note_takes_no_version_back_that_has_proved_itself(
    board: Board, raw: bytes
) -> None:
    board.link("current", NEW)
    launch.kept_path(board.data).parent.mkdir()
    launch.kept_path(board.data).write_bytes(raw)
    assert board.start()[:2] == [NEW, NEW]


def test_a_disk_that_counts_nothing_takes_no_kept_version_back(board: Board) -> None:
    board.link("current", NEW)
    write_kept(board.data, Kept(NEW, OLD))
    launch.kept_path(board.data).with_name(".kept.json.launch").mkdir()
    for _ in range(MOST_ENDS + 2):
        assert board.start()[:2] == [NEW, NEW]


def test_a_program_that_is_gone_leads_to_what_is_allowed_and_not_to_what_ran_before(
    board: Board,
) -> None:
    """What ran before may have been yanked since."""
    board.link("current", NEW)
    board.link("previous", OLD)
    write_kept(board.data, Kept(NEW, INSTALLED))
    (board.model / "versions" / NEW / "agent.sh").unlink()
    assert board.start()[:3] == [INSTALLED, INSTALLED, NEW]


def test_an_agent_that_ends_well_is_not_counted(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.link("current", NEW)
    write_kept(board.data, Kept(NEW, OLD))
    board.start()
    monkeypatch.setenv(launch.DATA, str(board.data))
    monkeypatch.setenv(launch.SLOT, OLD)
    slots.ended_well()  # another one's end is not that one's
    assert len(read_kept(board.data).starts) == 1  # type: ignore[union-attr]
    monkeypatch.setenv(launch.SLOT, NEW)
    slots.ended_well()
    assert read_kept(board.data) == replace(read_kept(board.data), starts=())  # type: ignore[type-var]


def test_what_is_behind_a_kept_version_is_noted_anew_and_its_end_only_by_itself(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(launch.SLOT, OLD)
    slots.keep(board.data, NEW, OLD)
    assert read_kept(board.data) == Kept(NEW, OLD)
    slots.keep(board.data, NEW, INSTALLED)  # the one before was yanked
    assert read_kept(board.data) == Kept(NEW, INSTALLED)
    write_kept(board.data, Kept(NEW, OLD, failed="it ended"))
    assert slots.given_up(board.data, NEW) == "it ended"
    slots.keep(board.data, NEW, OLD)
    assert slots.given_up(board.data, NEW) == "it ended"
    monkeypatch.setenv(launch.SLOT, NEW)  # it was tried again, and is kept again
    slots.keep(board.data, NEW, OLD)
    assert read_kept(board.data) == Kept(NEW, OLD)


# the launcher, killed at its n-th look at or change of a file
KILLED = """
import os, signal, sys
left = [int(sys.argv.pop(1))]
def count(event, arguments):
    if event in ("open", "os.rename", "os.mkdir", "os.fork", "os.exec") and "{data}" in str(
        arguments) + ("{data}" if event in ("os.fork", "os.exec") else ""):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.path.insert(0, "{folder}")
import launch
sys.addaudithook(count)
launch.main(sys.argv[1:])
"""


@pytest.mark.parametrize("starts", [0, MOST_STARTS - 1, MOST_STARTS])
def test_a_kill_at_each_step_of_it_loses_no_agent(board: Board, starts: int) -> None:
    """Whatever step was the last, the next start is an agent's, and no start goes uncounted."""
    board.link("current", NEW)
    board.link("previous", OLD)
    folder = Path(launch.__file__).parent
    code = KILLED.format(data=board.data, folder=folder)
    _, _, _, *rest = board.words()
    for step in range(100):
        board.trial(starts=starts)
        first = board.start([sys.executable, "-I", "-c", code, str(step), *rest])
        trial = read_trial(board.data)
        assert trial is not None  # whole, at every step
        if first:
            break
        assert board.status == -signal.SIGKILL
        assert starts <= trial.starts <= starts + 1
        wanted = NEW if trial.starts < MOST_STARTS and not trial.failed else OLD
        assert board.start()[:2] == [wanted, wanted], (step, trial)
    assert step > 5
    assert first[0] == (NEW if starts < MOST_STARTS else OLD)


def test_it_needs_nothing_but_the_standard_library(board: Board) -> None:
    """It is started by its path, without site-packages, where no package can be imported."""
    own = [sys.executable, "-I", "-S", launch.__file__, str(board.data), str(board.installed)]
    assert board.start([*own, "--", "run"])[:2] == [INSTALLED, INSTALLED]


@pytest.mark.parametrize("words", [[], ["data"], ["data", "--", "run"], ["data", "program"]])
def test_a_command_line_that_it_does_not_know_is_refused(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", launch.__file__, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "as the service's unit" in done.stderr) == (1, True)


# --- what the agent reads of it


def test_an_agent_that_no_launcher_started_never_restarts(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(launch.SLOT, raising=False)
    board.link("current", NEW)
    assert not slots.must_restart(board.data)


@pytest.mark.parametrize(
    ("slot", "passed_over", "trial", "restarts"),
    [
        (NEW, "", {}, False),  # it is the one
        (OLD, "", {}, True),  # the link has been moved since it started
        (OLD, NEW, {"failed": "boom"}, False),  # the launcher would start this one again
        (OLD, NEW, {"starts": 2}, False),
        (OLD, NEW, {"starts": 0}, True),  # it is tried again, by an operator's wish
        (OLD, NEW, None, False),
        (INSTALLED, "", {}, True),
    ],
)
def test_an_agent_ends_for_one_that_would_be_started(
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    slot: str,
    passed_over: str,
    trial: dict[str, object] | None,
    restarts: bool,
) -> None:
    monkeypatch.setenv(launch.SLOT, slot)
    monkeypatch.setenv(launch.PASSED_OVER, passed_over)
    board.link("current", NEW)
    if trial is not None:
        board.trial(**trial)
    assert slots.must_restart(board.data) is restarts


def test_beginning_a_trial_again_forgets_no_start(board: Board) -> None:
    """After a power cut the switch is made again; a retry by an operator is another number."""
    layout = Layout(board.data)
    board.link("current", OLD)
    slots.begin(Disk(), layout, NEW, 7, 60.0)
    board.link("previous", OLD)
    board.link("current", NEW)
    board.start()
    slots.begin(Disk(), layout, NEW, 7, 60.0)
    assert slots.trial_of(board.data, NEW) == Trial(NEW, 7, OLD, 60.0, starts=1)
    slots.begin(Disk(), layout, NEW, 8, 60.0)
    assert slots.trial_of(board.data, NEW) == Trial(NEW, 8, OLD, 60.0, starts=0)
    assert os.listdir(layout.trial.parent) == ["trial.json"]
