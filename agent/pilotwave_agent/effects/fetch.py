"""Bring a version's files here, as far as order, limits and disk allow."""

from __future__ import annotations

import time

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


def fetch(tools: Tools, step: Fetch) -> Record | None:
    """Fetch what is missing, for as long as the step allows."""
    slot, disk, blobs = tools.slot(step.model), tools.disk, tools.layout.blobs
    files = tools.candidate(slot)[1].variant.files
    total = disk_budget.total_of(files)
    left = missing_bytes(disk, blobs, files)
    disk_budget.check(tools.config, disk, blobs, total=total, missing=left)
    if left and not tools.token:
        return _wait_for_server(tools, slot)
    told = 0.0

    def came(count: int) -> None:
        nonlocal left, told
        left -= count
        if time.monotonic() - told >= 1:
            told = time.monotonic()
            percent = max(100 - left * 100 // max(total, 1), 0)
            tools.tell({"progress": {slot.model: percent}})
        _check_conditions(tools, slot)

    downloader = Downloader(
        disk=disk,
        blobs=blobs,
        channel=tools.channel,
        token=tools.token,
        limits=Limits(tools.config.keep_free_mb << 20, tools.config.limits.max_rate),
        progress=came,
        shortcut=_deltas(tools, slot, files).way,
        mirrors=tools.mirrors,
    )
    try:
        with disk_says_no():
            downloader.fetch(files, budget_s=step.budget_s)
    except Paused:
        tools.notes.fetched[slot.model] = tools.now().uptime
        return None
    finally:
        _report_direct(tools, slot)
    return outcomes.fetched(slot, tools.now())


def _report_direct(tools: Tools, slot: ModelSlot) -> None:
    """Have the server told what it did not see: it counts the bytes of each version."""
    came = sum(tools.mirrors.direct_bytes.values())
    tools.mirrors.direct_bytes.clear()
    if came:
        version = slot.candidate.version if slot.candidate else None
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
