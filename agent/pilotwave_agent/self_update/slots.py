"""Which agent this process is, which one is to run, and how the trial of a new one goes.

What is started is `launch`'s to decide; here is what the agent itself reads and writes of that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.self_update import launch
from pilotwave_agent.self_update.launch import BadTrial, Kept, Trial

PROOF = ("check_in", "poll", "directive")
"""What a new agent must do: have a check-in accepted, a poll answered, a directive verified."""


def running() -> str:
    """Return which agent this is; empty for one that no launcher started."""
    return os.environ.get(launch.SLOT, "")


def must_restart(data: Path) -> bool:
    """Say whether another agent than this one is to run, and the launcher would start it."""
    mine, wanted = running(), launch.named(data, "current")
    if not mine or mine == wanted:
        return False
    if wanted != os.environ.get(launch.PASSED_OVER):
        return True
    trial = trial_of(data, wanted)
    return trial is not None and trial.starts == 0 and not trial.failed


def trial_of(data: Path, name: str) -> Trial | None:
    """Return the note of the trial of `name`; None without one, or with one that is unreadable."""
    try:
        trial = launch.read_trial(data)
    except BadTrial:
        return None
    return trial if trial is not None and trial.folder == name else None


def verdict(data: Path, name: str) -> str:
    """Return why the agent `name` is not to be kept; empty if nothing is against it."""
    try:
        trial = launch.read_trial(data)
    except BadTrial as e:
        return str(e)
    if trial is not None and trial.folder == name and trial.failed:
        return trial.failed
    mine = running()
    return f"{mine} runs instead of it" if mine not in ("", name) else ""


def begin(disk: Disk, layout: Layout, name: str, number: int, within_s: float) -> None:
    """Note that the trial of `name` begins; of one that has begun, nothing changes. The link is
    moved after this. May raise `OSError`."""
    trial = trial_of(layout.root, name)
    if trial is not None and trial.number == number:
        disk.sync_file(layout.trial)
        return
    now = launch.named(layout.root, "current")
    back = now if now != name else launch.named(layout.root, "previous")
    _write(disk, layout, Trial(name, number, back, within_s))


def take(disk: Disk, layout: Layout, trial: Trial) -> None:
    """Note that the agent on trial has proved itself. May raise `OSError`."""
    _write(disk, layout, Trial(**{**vars(trial), "taken": True}))


def keep(data: Path, name: str, back: str) -> None:
    """Note what may run instead of `name`, which was kept. Another agent than that one does not
    forget that it is started no more. May raise `OSError`."""
    kept = launch.read_kept(data)
    if kept is None or kept.folder != name:
        kept = Kept(name, "")
    elif kept.failed and running() != name:
        return
    wanted = replace(kept, back=back, failed="", starts=() if kept.failed else kept.starts)
    if wanted != kept:
        launch.write_kept(data, wanted)


def ended_well() -> None:
    """Note that this agent ends because it was told to, or said why it cannot run: that is not held
    against it."""
    data = Path(os.environ.get(launch.DATA, os.devnull))
    kept = launch.read_kept(data)
    if kept is not None and kept.folder == running() and kept.starts:
        with contextlib.suppress(OSError):
            launch.write_kept(data, replace(kept, starts=()))


def given_up(data: Path, name: str) -> str:
    """Return why the launcher starts `name`, which was kept, no more; empty if it does."""
    kept = launch.read_kept(data)
    return kept.failed if kept is not None and kept.folder == name != running() else ""


def _write(disk: Disk, layout: Layout, trial: Trial) -> None:
    disk.make_dirs(layout.trial.parent)
    disk.write_atomic(layout.trial, trial.to_bytes(), 0o644)


def end(disk: Disk, layout: Layout) -> None:
    """Forget the trial: it is decided. May raise `OSError`."""
    if disk.size(layout.trial) is not None:
        disk.unlink(layout.trial)
        disk.sync_dir(layout.trial.parent)


def clear(disk: Disk, layout: Layout, kept: Collection[str]) -> None:
    """Remove the programs of versions whose folders are gone, but for the one that runs. May raise
    `OSError`."""
    for name in disk.names(layout.programs):
        if name not in kept and name != running():
            disk.remove_tree(layout.programs / name)
