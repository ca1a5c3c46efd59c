"""The files of masked rounds on a device: what is remembered of its part, and its numbers. They go
when a round is answered, over, or the owner wants no part in it."""

from __future__ import annotations

import time
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.learning.masked.state import MaskedState
from pilotwave_agent.rounds import SENT

STATE, NUMBERS = ".masked", ".numbers"


def finish(disk: Disk, sent: Path, told: bytes = b"") -> None:
    """Remember that a round is answered, and nothing else of it."""
    disk.make_dirs(sent.parent)
    if disk.size(sent) is None:
        disk.write_atomic(sent, told)
    for ending in (STATE, NUMBERS):
        disk.unlink(sent.with_suffix(ending))
    disk.sync_dir(sent.parent)


def tidy_masked(disk: Disk, folder: Path) -> None:
    """Remove what a power cut left, and what belongs to plans whose time is over."""
    for name in disk.names(folder):
        path = folder / name
        sent, state = path.with_suffix(SENT), path.with_suffix(STATE)
        if path.suffix == NUMBERS and disk.size(state) is None:
            disk.unlink(path)  # no key was sent: they are worked out again
        if path == state and (disk.size(sent) is not None or _is_over(disk.read(path))):
            finish(disk, sent)


def drop_masked(disk: Disk, layout: Layout, model: str) -> int:
    """Take no further part in masked rounds of a model; return in how many it did."""
    found = [
        path for path in layout.updates.glob(f"[!.]*{STATE}") if _model_of(disk, path) == model
    ]
    for path in found:
        finish(disk, path.with_suffix(SENT))
    return len(found)


def _model_of(disk: Disk, state: Path) -> str:
    try:
        return MaskedState.from_bytes(disk.read(state)).model
    except (ValueError, FileNotFoundError):
        return ""


def _is_over(raw: bytes) -> bool:
    try:
        return MaskedState.from_bytes(raw).ends <= time.time()
    except ValueError:
        return True
