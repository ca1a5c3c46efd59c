"""Measure the variants of a version that the server asks this device to compare.

1. All files are fetched, as far as conditions, limits and disk allow, and the folders proven.
2. Each variant passes its self-test, in a child of its own, or is told as failed.
3. Those that passed are timed in turns in one child, where they have room beside each other; the
   energy of a call is counted there, where the device can.
4. What was found is journalled in one record, and what nobody needs is cleared away.
What cannot be done now is tried later; it is no news of any variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pilotwave_agent import version_folder
from pilotwave_agent.core import conditions, records
from pilotwave_agent.core.compare import MOST_TRIES, Wish, pending, tries
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.state import Measured, ModelSlot
from pilotwave_agent.core.steps import Compare
from pilotwave_agent.effects.fetch import fetch_beside
from pilotwave_agent.effects.holds import held_at
from pilotwave_agent.effects.tools import TRANSIENT, Tools, disk_says_no
from pilotwave_agent.effects.trial import limits_of, selftest
from pilotwave_agent.facts import facts_of
from pilotwave_agent.hardware.energy import find_meter
from pilotwave_agent.selftest import (
    SelfTestFigures,
    SelfTestFolders,
    TurnFigures,
    may_take_turns,
    run_in_turns,
)
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.figures import VariantFigures, figures_detail
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import variant_fits

_GATES = (conditions.FETCH, conditions.CHANGE)


def compare(tools: Tools, step: Compare) -> Record | None:
    """Compare what the model's order names; None where it has to wait."""
    slot = tools.slot(step.model)
    wish = pending(tools.journal.state, slot)
    if wish is None:
        return None
    try:
        return _compared(tools, slot, wish)
    except RefusedError:  # by the disk or the server: it says nothing of a variant
        tools.notes.later.add(slot.model)
        return None


def _compared(tools: Tools, slot: ModelSlot, wish: Wish) -> Record | None:
    first = wish.versions[0]
    begun = tries(tools.journal.state, slot.model, wish)
    known = Measured(first.sha256, wish.of, begun + 1)
    facts = facts_of(tools.config)
    found = {v: no for v in wish.versions if (no := _misfit(tools, slot, v, facts)) is not None}
    fit = [v for v in wish.versions if v not in found]
    if begun >= MOST_TRIES:
        found |= dict.fromkeys(fit, VariantFigures(failed=str(Reason.SELFTEST_CRASH)))
    elif not _brought(tools, slot, fit):
        tools.notes.later.add(slot.model)
        return None
    else:
        tools.record(records.measuring(slot.model, known, at=tools.now().wall))
        found |= _measured(tools, slot, fit)
    details = [figures_detail(v.variant, found[v]) for v in wish.versions]
    return records.measured(slot.model, known, first.version, details, at=tools.now().wall)


def _misfit(
    tools: Tools, slot: ModelSlot, version: Installed, facts: Mapping[str, Scalar]
) -> VariantFigures | None:
    """Say why a variant does not run here, by its manifest."""
    try:
        variant = tools.build(version).variant
    except RefusedError as no:
        if no.reason is not Reason.VARIANT_UNKNOWN:
            raise
        return VariantFigures(failed=str(no.reason))
    allowed = tools.config.allow_unsafe_formats
    fit = variant_fits(variant, facts, model=slot.model, allow_unsafe=allowed)
    return None if fit.reason is None else VariantFigures(failed=str(fit.reason))


def _brought(tools: Tools, slot: ModelSlot, versions: list[Installed]) -> bool:
    """Have the folders of all these versions here; False where that has to wait."""
    if tools.look_around().metered or any(held_at(tools, slot, gate) for gate in _GATES):
        return False
    for version in versions:
        build = tools.build(version)
        if not fetch_beside(tools, slot, version.version, build.variant.files):
            return False
        with disk_says_no():
            version_folder.stage(tools.disk, tools.layout, slot.model, version, build)
    return True


def _measured(
    tools: Tools, slot: ModelSlot, versions: list[Installed]
) -> Mapping[Installed, VariantFigures]:
    found: dict[Installed, VariantFigures] = {}
    passed: dict[Installed, SelfTestFigures] = {}
    for version in versions:
        try:
            with disk_says_no():
                passed[version] = selftest(tools, slot.model, version)
        except RefusedError as no:
            if no.reason in TRANSIENT:
                raise
            found[version] = VariantFigures(failed=str(no.reason))
    times = _in_turns(tools, slot, list(passed))
    for version, figures in passed.items():
        own = TurnFigures(figures.p05_ms or figures.p50_ms, figures.cpu_ms)
        turns = times.get(version, own)
        found[version] = VariantFigures(
            p05_ms=turns.p05_ms or None,
            cpu_ms=turns.cpu_ms or None,
            energy_mj=turns.energy_mj,
            load_ms=figures.load_ms or None,
            peak_mb=figures.peak_mb or None,
        )
    return found


def _in_turns(
    tools: Tools, slot: ModelSlot, versions: list[Installed]
) -> Mapping[Installed, TurnFigures]:
    """Time them beside each other; nothing where they cannot be, so that each has its own times."""
    meter = find_meter(Path("/"))
    variants = [tools.build(v).variant for v in versions]
    settings = [tools.config.runtimes.get(v.runtime, RuntimeSettings()) for v in variants]
    if len(versions) < (1 if meter else 2) or not all(map(may_take_turns, variants, settings)):
        return {}
    folders = [tools.layout.version(slot.model, v) for v in versions]
    place = SelfTestFolders(own=tools.config.data_dir)
    pairs = list(zip(folders, variants, strict=True))
    try:
        times = run_in_turns(pairs, limits_of(tools.config), place, meter)
    except RefusedError:
        return {}
    return dict(zip(versions, times, strict=True))
