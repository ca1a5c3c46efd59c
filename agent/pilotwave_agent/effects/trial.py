"""Try a version before the switch, by its self-test."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

from pilotwave_agent.core import outcomes
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.shadow import is_shadow
from pilotwave_agent.core.steps import Trial
from pilotwave_agent.core.ties import mates
from pilotwave_agent.effects.tools import TRANSIENT, Tools, disk_says_no
from pilotwave_agent.runtimes import WHEELHOUSE, engines, wheelhouse
from pilotwave_agent.selftest import (
    SelfTestFigures,
    SelfTestFolders,
    TestLimits,
    prepare,
    run_selftest,
)
from pilotwave_agent.settings.config import Config, RuntimeSettings
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.messages.check_in import Installed


def trial(tools: Tools, step: Trial) -> Record:
    """Run the candidate's self-test."""
    slot = tools.slot(step.model)
    version, _ = tools.candidate(slot)
    try:
        with disk_says_no():
            figures = str(selftest(tools, slot.model, version))
    except RefusedError as no:
        if no.reason in TRANSIENT:
            raise
        return outcomes.failed(slot, no, tools.now())
    state = tools.journal.state
    stays = mates(state, slot.model) or is_shadow(state.orders.get(slot.model))
    passed = outcomes.tested if stays else outcomes.passed
    return passed(slot, figures, tools.now())


def limits_of(config: Config) -> TestLimits:
    """Return what the device's settings let a self-test take."""
    return TestLimits(
        config.selftest_timeout_s,
        config.selftest_memory_mb,
        config.selftest_cpu_s,
        config.selftest_allow_unconfined,
        config.selftest_filter_calls,
        config.facts.hide,
    )


def terms_of(
    config: Config, variant: Variant
) -> tuple[TestLimits, RuntimeSettings, SelfTestFolders]:
    """Return on which terms the device's settings let a child run a variant."""
    own = config.data_dir
    place = SelfTestFolders(own=own, cache=own / engines.FOLDER)
    return limits_of(config), config.runtimes.get(variant.runtime, RuntimeSettings()), place


def selftest(tools: Tools, model: str, version: Installed) -> SelfTestFigures:
    """Run a version's self-test and return its figures. Raises `RefusedError`."""
    variant = tools.build(version).variant
    limits, settings, place = terms_of(tools.config, variant)
    folder = tools.layout.version(model, version)
    if variant.runtime == WHEELHOUSE:
        program, timeout_s = tools.layout.programs / folder.name, settings.build_timeout_s
        wheelhouse.build_missing(
            tools.disk, folder, variant.entrypoint, program, timeout_s=timeout_s
        )
        place = replace(place, cache=program)
    if variant.runtime == "tensorrt":
        prepare(folder, variant, settings, place)
    note = partial(_note_confinement, tools)
    return run_selftest(folder, variant, limits, settings, place, note)


def _note_confinement(tools: Tools, found: str) -> None:
    """Keep for the report how confined the last self-test was."""
    disk, path, raw = tools.disk, tools.layout.confinement, found.encode() + b"\n"
    with contextlib.suppress(OSError):
        if disk.size(path) != len(raw) or disk.read(path) != raw:
            disk.write_atomic(path, raw, 0o644)
