"""Decide which versions' bytes may go, and say of each other version why it stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.tables import PinRow
from pilotwave_server.registry.tables import ModelRow, VariantRow, VersionRow
from pilotwave_server.rollouts.assignments.fallbacks import standing
from pilotwave_server.rollouts.assignments.snapshot import Baseline
from pilotwave_server.rollouts.states import OVER
from pilotwave_server.rollouts.tables import BaselineRow, QuarantineRow, RolloutRow

Key = tuple[str, str]
FALL_BACK_ON = 2
"""Of what a group was told to run, the newest so many stay: the one that counts, and one more in
case that it is yanked or denied."""


@dataclass(frozen=True)
class Keeping:
    """One version whose bytes are here: `stays` says why it is kept; empty: it may go."""

    model: str
    version: str
    size: int
    why: str
    stays: str


def judge(session: Session, *, keep_versions: int) -> list[Keeping]:
    """Judge every version that has bytes, by model, the newest first.

    A yanked version goes, as nobody may be offered it. With `keep_versions` so do versions older
    than that many of a model. What a device runs or holds, and what an operator names, stays.
    """
    v = VersionRow
    sizes = dict(
        session.execute(
            select(VariantRow.version_id, func.sum(VariantRow.size)).group_by(VariantRow.version_id)
        )
        .tuples()
        .all()
    )
    query = select(v).where(v.purged_at.is_(None)).order_by(v.model, v.counter.desc())
    used = _used(session)
    place: dict[str, int] = defaultdict(int)
    found = []
    for row in session.scalars(query):
        yanked = row.yanked_at is not None
        place[row.model] += not yanked
        old = 0 < keep_versions < place[row.model]
        why = "yanked" if yanked else f"older than the newest {keep_versions}" if old else ""
        stays = used.get((row.model, row.version), "") if why else "not old"
        size = int(sizes.get(row.id, 0))
        found.append(Keeping(row.model, row.version, size, why, stays))
    return found


def _used(session: Session) -> dict[Key, str]:
    """Versions that are needed, and by what."""
    found: dict[Key, str] = {}
    for key, why in _needs(session):
        found.setdefault(key, why)
    return found


def _needs(session: Session) -> Iterator[tuple[Key, str]]:
    p, r, m = PinRow, RolloutRow, DeviceModelRow
    yield from _baselines(session)
    for key in session.execute(select(p.model, p.version).distinct()):
        yield (key[0], key[1]), "a device is pinned to it"
    over = [str(state) for state in OVER]
    for key in session.execute(select(r.model, r.version).where(r.state.not_in(over))):
        yield (key[0], key[1]), "a rollout brings it"
    for column, why in (
        (m.current_version, "a device runs it"),
        (m.previous_version, "a device would go back to it"),
        (m.candidate_version, "a device fetches it"),
    ):
        held = select(m.model, column).where(column.is_not(None)).distinct()
        for model, version in session.execute(held):
            yield (model, str(version)), why


def _baselines(session: Session) -> Iterator[tuple[Key, str]]:
    b, q = BaselineRow, QuarantineRow
    newest_first = select(b).where(b.ended_at.is_(None)).order_by(b.revision.desc(), b.id.desc())
    told = [
        Baseline(row.group_id, "", row.model, row.version, row.revision)
        for row in session.scalars(newest_first)
    ]
    barred = set(session.execute(select(q.group_id, q.model, q.version)).tuples())
    first: set[tuple[int, str]] = set()
    for found in standing(told, _offered(session), barred=barred, depth=FALL_BACK_ON):
        place = (found.group_id, found.model)
        why = "a group would fall back on it" if place in first else "a group runs it"
        first.add(place)
        yield (found.model, found.version), why


def _offered(session: Session) -> dict[Key, list[str]]:
    """The variants of each version that may be offered, whatever is quarantined."""
    v, a, o = VersionRow, VariantRow, ModelRow
    query = (
        select(v.model, v.version, a.name)
        .join(a, a.version_id == v.id)
        .join(o, o.name == v.model)
        .where(v.purged_at.is_(None), v.yanked_at.is_(None), v.denied_at.is_(None))
        .where(v.pruned_at.is_(None), v.counter >= o.floor)
    )
    found: dict[Key, list[str]] = defaultdict(list)
    for model, version, variant in session.execute(query):
        found[model, version].append(variant)
    return found
