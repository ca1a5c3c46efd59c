"""Try a version: by its self-test before the switch, by its probe afterwards."""

from __future__ import annotations

import contextlib

from pilotwave_agent import health, version_folder
from pilotwave_agent.core import outcomes
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.core.ties import mates
from pilotwave_agent.effects.base import TRANSIENT, EffectsBase, disk_says_no, rules_of
from pilotwave_agent.runtimes import engines
from pilotwave_agent.selftest import SelfTestFolders, TestLimits, prepare, run_selftest
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages import Installed
from pilotwave_protocol.states import ModelState


class Trying(EffectsBase):
    """The effects that ask whether a version is any good."""

    def _try(self, slot: ModelSlot) -> None:
        version, _ = self._candidate(slot)
        try:
            with disk_says_no():
                figures = self._selftest(slot.model, version)
        except RefusedError as no:
            if no.reason in TRANSIENT:
                raise
            self.record(outcomes.failed(slot, no, self.now()))
            return
        passed = outcomes.tested if mates(self.journal.state, slot.model) else outcomes.passed
        self.record(passed(slot, figures, self.now()))

    def _selftest(self, model: str, version: Installed) -> str:
        variant = version_folder.build_of(self.disk, self.layout, version).variant
        config, own = self.config, self.config.data_dir
        limits = TestLimits(
            config.selftest_timeout_s,
            config.selftest_memory_mb,
            config.selftest_cpu_s,
            config.selftest_allow_unconfined,
            config.selftest_filter_calls,
        )
        settings = config.runtimes.get(variant.runtime, RuntimeSettings())
        place = SelfTestFolders(own=own, cache=own / engines.FOLDER)
        folder = self.layout.version(model, version)
        if variant.runtime == "tensorrt":
            prepare(folder, variant, settings, place)
        return str(run_selftest(folder, variant, limits, settings, place, self._note_confinement))

    def _note_confinement(self, found: str) -> None:
        """Keep for the report how confined the last self-test was."""
        path, raw = self.layout.confinement, found.encode() + b"\n"
        with contextlib.suppress(OSError):
            if self.disk.size(path) != len(raw) or self.disk.read(path) != raw:
                self.disk.write_atomic(path, raw, 0o644)

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
            users=self.config.app_users.get(slot.model),
            since=health.Since(watch.started, watch.restarts) if watch else None,
        )
        now = self.now()
        self.probed[slot.model] = now.uptime
        order = self.journal.state.orders.get(slot.model)
        rules = rules_of(self.config)
        self.record(outcomes.probed(slot, no, now, rules, last=last, order=order))
