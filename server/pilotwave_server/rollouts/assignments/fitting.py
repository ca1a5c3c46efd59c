"""Say how many of a group's devices a version has a variant for, before or after it is assigned.

Devices are counted in the database by those facts alone that the version's variants ask for, so
that `resolve`'s own rule judges each distinct combination once, however many devices there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.messages.facts import AGENT_MANIFEST, AGENT_UPDATES
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.trust import facts_asked
from pilotwave_server.devices.report_tables import DeviceHistoryRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.resolve import choose_variant
from pilotwave_server.rollouts.assignments.snapshot import DeviceView
from pilotwave_server.rollouts.choice.trial import NO_TRIALS, Trials
from pilotwave_server.rollouts.outcomes import SENT_BACK
from pilotwave_server.rollouts.policies.choose import Choose

MOST_COUNTED = 100_000
MOST_CHOSEN = 10_000
"""Of so many devices each is judged by itself, where measurements choose."""


@dataclass(frozen=True)
class Fitting:
    """Of `devices` enrolled devices `fits` have a variant; `holds` counts the others by reason."""

    devices: int
    fits: int
    holds: dict[str, int]
    variants: dict[str, int]


def count_fitting(
    session: Session,
    group: GroupRow,
    version: Released,
    *rules: ColumnElement[bool],
    choose: Choose | None = None,
    trials: Trials = NO_TRIALS,
) -> Fitting:
    """Count the group's enrolled devices (for which all `rules` hold) by what they would get of
    `version`: where `trials` choose, by these; in a larger group, by the publisher's order."""
    members = in_group(session, group), *rules
    if choose is not None and trials and _are_few(session, *members):
        kinds = _each(session, *members)
    else:  # what tells kinds apart does not tell classes apart
        kinds, choose = _kinds(session, version, *members), None
    holds: Counter[str] = Counter()
    variants: Counter[str] = Counter()
    for count, kind in kinds:
        variant, hold = choose_variant(kind, version, choose, trials)
        if variant is not None:
            variants[variant.name] += count
        elif hold is not None:
            holds[str(hold.reason)] += count
    fits = sum(variants.values())
    return Fitting(fits + sum(holds.values()), fits, dict(holds), dict(variants))


def count_each(session: Session, version: Released) -> dict[str, int] | None:
    """Count the enrolled devices that each variant fits, whichever stands before it; None where the
    fleet is too large to be counted while a page waits."""
    enrolled = select(func.count()).select_from(DeviceRow).where(DeviceRow.state == "enrolled")
    if (session.scalar(enrolled) or 0) > MOST_COUNTED:
        return None
    alone = {v.name: replace(version, variants=(v,)) for v in version.variants}
    fits = dict.fromkeys(alone, 0)
    for count, kind in _kinds(session, version):
        for name, only in alone.items():
            fits[name] += count * (choose_variant(kind, only)[0] is not None)
    return fits


def _are_few(session: Session, *rules: ColumnElement[bool]) -> bool:
    members = select(DeviceRow.id).where(DeviceRow.state == "enrolled", *rules)
    some = select(func.count()).select_from(members.limit(MOST_CHOSEN + 1).subquery())
    return (session.scalar(some) or 0) <= MOST_CHOSEN


def _each(session: Session, *rules: ColumnElement[bool]) -> Iterator[tuple[int, DeviceView]]:
    query = select(DeviceRow.name, DeviceRow.facts).where(DeviceRow.state == "enrolled", *rules)
    for name, facts in session.execute(query):
        yield 1, DeviceView(name=name, facts=facts)


def _kinds(
    session: Session, version: Released, *rules: ColumnElement[bool]
) -> Iterator[tuple[int, DeviceView]]:
    """Yield how many enrolled devices there are of each kind that `version` tells apart."""
    keys = _asked_for(version)
    columns = [DeviceRow.facts[key].label(f"fact_{n}") for n, key in enumerate(keys)]
    query = select(func.count(), *columns).where(DeviceRow.state == "enrolled", *rules)
    for count, *values in session.execute(query.group_by(*columns)):
        facts = {k: v for k, v in zip(keys, values, strict=True) if v is not None}
        yield count, DeviceView(name="", facts=facts)


def _asked_for(version: Released) -> list[str]:
    """The facts that decide which variant fits (`choose_variant`)."""
    keys = {"arch", "memory_mb", "allow_unsafe_formats", *facts_asked(version.variants)}
    if version.schema > 1:
        keys.add(AGENT_MANIFEST)
    if version.model == AGENT_MODEL:
        keys.add(AGENT_UPDATES)
    for variant in version.variants:
        keys.add(f"runtime.{variant.runtime}")
        if variant.requires.accelerator:
            keys.add(f"accelerator.{variant.requires.accelerator}")
    return sorted(keys)


@dataclass(frozen=True)
class InTrouble:
    """Of a group's enrolled devices, how many refuse their orders, and on how many the version
    failed before."""

    refusing: int
    failed_before: int


def count_in_trouble(session: Session, group: GroupRow, version: Released) -> InTrouble:
    """Count the devices that will hardly take a version which they are told to run."""
    d, h = DeviceRow, DeviceHistoryRow
    members = select(func.count()).where(d.state == "enrolled", in_group(session, group))
    own = or_(h.reason.is_(None), h.reason.not_in(SENT_BACK))
    failed = select(h.device_id).where(
        h.model == version.model,
        h.version == version.version,
        h.became.in_(("failed", "rolled_back")),
        own,
    )
    return InTrouble(
        refusing=session.scalar(members.where(d.refusal.is_not(None))) or 0,
        failed_before=session.scalar(members.where(d.id.in_(failed))) or 0,
    )
