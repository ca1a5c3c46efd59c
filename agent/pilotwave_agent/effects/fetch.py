"""Bring a version's files here, as far as order, limits and disk allow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from pilotwave_agent.core import outcomes, records
from pilotwave_agent.core.records import Record, moved
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.core.steps import Fetch
from pilotwave_agent.effects import disk_budget
from pilotwave_agent.effects.holds import held
from pilotwave_agent.effects.tools import Tools, disk_says_no
from pilotwave_agent.net.deltas import Deltas
from pilotwave_agent.net.download import Downloader, Limits, Paused
from pilotwave_agent.net.whole_file import missing_bytes
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason

_LOOK_EVERY_S = 15.0
_BESIDE_S = 60.0


def fetch(tools: Tools, step: Fetch) -> Record | None:
    """Fetch what is missing, for as long as the step allows."""
    slot = tools.slot(step.model)
    files = tools.candidate(slot)[1].variant.files
    left = _room_for(tools, files)
    if left and not tools.token:
        return _wait_for_server(tools, slot)
    told, total = 0.0, disk_budget.total_of(files)

    def came(count: int) -> None:
        nonlocal left, told
        left -= count
        if time.monotonic() - told >= 1:
            told = time.monotonic()
            percent = max(100 - left * 100 // max(total, 1), 0)
            tools.tell({"progress": {slot.model: percent}})
        _check_conditions(tools, slot)

    version = slot.candidate.version if slot.candidate else None
    try:
        _download(tools, slot, version, files, came, budget_s=step.budget_s)
    except Paused:
        tools.notes.fetched[slot.model] = tools.now().uptime
        return None
    return outcomes.fetched(slot, tools.now())


def fetch_beside(tools: Tools, slot: ModelSlot, version: str, files: tuple[FileEntry, ...]) -> bool:
    """Fetch files of a version that is not to be switched to; say whether all are here. Raises
    `RefusedError`."""
    left = _room_for(tools, files)
    if left and not tools.token:
        return False
    with contextlib.suppress(Paused):
        _download(tools, slot, version, files, lambda count: None, budget_s=_BESIDE_S)
    return missing_bytes(tools.disk, tools.layout.blobs, files) == 0


def _room_for(tools: Tools, files: tuple[FileEntry, ...]) -> int:
    """Return how many bytes are missing. Raises `RefusedError` where they have no room."""
    disk, blobs = tools.disk, tools.layout.blobs
    left = missing_bytes(disk, blobs, files)
    total = disk_budget.total_of(files)
    disk_budget.check(tools.config, disk, blobs, total=total, missing=left)
    return left


def _download(
    tools: Tools,
    slot: ModelSlot,
    version: str | None,
    files: tuple[FileEntry, ...],
    came: Callable[[int], None],
    *,
    budget_s: float | None,
) -> None:
    downloader = Downloader(
        disk=tools.disk,
        blobs=tools.layout.blobs,
        channel=tools.channel,
        token=tools.token,
        limits=Limits(tools.config.keep_free_mb << 20, tools.config.limits.max_rate),
        progress=came,
        shortcut=_deltas(tools, slot, files).way,
        mirrors=tools.mirrors,
    )
    try:
        with disk_says_no():
            downloader.fetch(files, budget_s=budget_s)
    finally:
        _report_direct(tools, slot, version)


def _report_direct(tools: Tools, slot: ModelSlot, version: str | None) -> None:
    """Have the server told what it did not see: it counts the bytes of each version."""
    came = sum(tools.mirrors.direct_bytes.values())
    tools.mirrors.direct_bytes.clear()
    if came:
        at = tools.now().wall
        tools.record(records.fetched_directly(slot.model, version, at=at, came=came))


def _wait_for_server(tools: Tools, slot: ModelSlot) -> Record | None:
    # no news to anyone: the server has not answered since this agent started
    no = RefusedError(Reason.BLOB_DENIED, "waiting for the server to answer")
    tools.notes.parked[slot.model] = no
    if slot.reason is not None:
        return None
    return moved(slot, slot.state, at=tools.now().wall, reason=no.reason, detail=no.sentence)


def _deltas(tools: Tools, slot: ModelSlot, files: tuple[FileEntry, ...]) -> Deltas:
    """Return the ways from the files that run now to those that are wanted."""
    before: dict[str, FileEntry] = {}
    if slot.current is not None:
        try:
            before = {entry.path: entry for entry in tools.build(slot.current).variant.files}
        except RefusedError:
            pass  # the whole files will do
    bases = {f.sha256: before[f.path] for f in files if f.path in before}
    return Deltas(bases, tools.config.delta_memory_mb << 20, tools.config.deltas)


def _check_conditions(tools: Tools, slot: ModelSlot) -> None:
    """Pause a long fetch when, say, the charger was pulled."""
    now = tools.now().uptime
    if now >= tools.notes.look_at:
        tools.notes.look_at = now + _LOOK_EVERY_S
        if held(tools, slot):
            raise Paused
