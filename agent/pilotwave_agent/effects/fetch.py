"""Bring a version's files here and build its folder, as far as order, limits and disk allow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pilotwave_agent import version_folder
from pilotwave_agent.apps import heartbeats
from pilotwave_agent.core import conditions, outcomes
from pilotwave_agent.core.conditions import Hold
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.core.records import moved
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.effects import disk_budget
from pilotwave_agent.effects.base import EffectsBase, disk_says_no
from pilotwave_agent.net.deltas import Deltas
from pilotwave_agent.net.download import Downloader, Limits, Paused
from pilotwave_agent.net.whole_file import missing_bytes
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason

_LOOK_EVERY_S = 15.0


class Fetching(EffectsBase):
    """The effects before a version can be tried."""

    def _fetch(self, slot: ModelSlot, budget_s: float | None) -> None:
        _, build = self._candidate(slot)
        files = build.variant.files
        total = max(total_of(files), 1)
        left = missing_bytes(self.disk, self.layout.blobs, files)
        disk_budget.check(self.config, self.disk, self.layout.blobs, total=total, missing=left)
        if left and not self.token:
            # no news to anyone: the server has not answered since this agent started
            no = RefusedError(Reason.BLOB_DENIED, "waiting for the server to answer")
            self.parked[slot.model] = no
            if slot.reason is None:
                at, why = self.now().wall, no.reason
                self.record(moved(slot, slot.state, at=at, reason=why, detail=no.sentence))
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
            shortcut=self._deltas(slot, files).way,
            mirrors=self.mirrors,
        )
        try:
            with disk_says_no():
                fetcher.fetch(files, budget_s=budget_s)
        except Paused:
            self.fetched[slot.model] = self.now().uptime
            return
        self.record(outcomes.fetched(slot, self.now()))

    def _deltas(self, slot: ModelSlot, files: Iterable[FileEntry]) -> Deltas:
        """Return the ways from the files that run now to those that are wanted."""
        before: dict[str, FileEntry] = {}
        if slot.current is not None:
            try:
                old = version_folder.build_of(self.disk, self.layout, slot.current).variant.files
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

    def _held(self, slot: ModelSlot, ordered: Mapping[str, Any], gate: str) -> Hold | None:
        """Return what the order or the device's own limits hold back, None if nothing is."""
        own = self.config.limits
        if not ordered and not own:
            return None
        world = self._world(slot)
        return conditions.hold(ordered, world, gate) or conditions.own_hold(own, world, gate)

    def _world(self, slot: ModelSlot) -> Environment:
        """Return the world as it was before this model's files began to fill the disk."""
        world = self.look_around()
        if world.disk_free_mb is None or slot.candidate is None:
            return world
        try:
            files = version_folder.build_of(self.disk, self.layout, slot.candidate).variant.files
        except RefusedError:
            return world
        came = total_of(files) - missing_bytes(self.disk, self.layout.blobs, files)
        return replace(world, disk_free_mb=world.disk_free_mb + (came >> 20))

    def _stage(self, slot: ModelSlot) -> None:
        version, build = self._candidate(slot)
        self._prepare_desks(slot.model)
        try:
            with disk_says_no():
                version_folder.stage(self.disk, self.layout, slot.model, version, build)
        except RefusedError as no:
            if no.reason is not Reason.BLOB_MISMATCH:
                raise
            self.record(outcomes.unstageable(slot, no, self.now()))
            return
        self.record(outcomes.staged(slot, self.now()))

    def _prepare_desks(self, model: str) -> None:
        """Make the folder for applications; where it cannot be made, they serve on unheard."""
        with contextlib.suppress(OSError):
            heartbeats.prepare(self.layout.live, model, self.config.apps_group)


def total_of(files: Iterable[FileEntry]) -> int:
    """Return how many bytes different files have together."""
    return sum({f.sha256: f.size for f in files}.values())
