"""Draw the fleet's picture (`FleetSnapshot`) from the database.

What never changes about a version is read and parsed once and kept: a new picture after a change
costs a few short queries, however many versions and devices there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import Variant
from pilotwave_server.db import fleet_row
from pilotwave_server.groups.selector import compile_predicate, parse
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.registry import service as registry
from pilotwave_server.rollouts.fleet import (
    Baseline,
    FleetSnapshot,
    GroupView,
    Quarantine,
)
from pilotwave_server.rollouts.tables import BaselineRow, QuarantineRow


class Remembered:
    """What was parsed of signed manifests, kept from one picture to the next."""

    def __init__(self) -> None:
        self.variants: dict[str, tuple[Variant, ...]] = {}


def read_snapshot(session: Session, remembered: Remembered) -> FleetSnapshot:
    """Return the picture at the session's moment."""
    row = fleet_row(session)
    groups = session.scalars(select(GroupRow).order_by(GroupRow.id)).all()
    names = {g.id: g.name for g in groups}
    versions = registry.released(session, remembered=remembered.variants)
    return FleetSnapshot(
        fleet=row.fleet,
        revision=row.fleet_revision,
        groups=tuple(_group(g) for g in groups),
        groups_key=_groups_key(groups),
        versions={(v.model, v.version): v for v in versions},
        floors=registry.floors(session),
        baselines=_baselines(session, names),
        quarantines=_quarantines(session),
    )


def _group(row: GroupRow) -> GroupView:
    selects = None if row.selector is None else compile_predicate(parse(row.selector))
    return GroupView(row.id, row.name, selects)


def _groups_key(groups: Iterable[GroupRow]) -> str:
    selectors = [(g.id, g.selector) for g in groups if g.selector is not None]
    return sha256_hex(repr(selectors).encode())


def _baselines(session: Session, names: dict[int, str]) -> dict[str, tuple[Baseline, ...]]:
    """The baselines in force, by model: a group's newest by revision, its older ones behind it."""
    standing = (
        select(BaselineRow)
        .where(BaselineRow.ended_at.is_(None))
        .order_by(BaselineRow.revision.desc(), BaselineRow.id.desc())
    )
    by_model: dict[str, list[Baseline]] = defaultdict(list)
    for row in session.scalars(standing):
        by_model[row.model].append(
            Baseline(row.group_id, names[row.group_id], row.model, row.version, row.revision)
        )
    return {model: tuple(found) for model, found in by_model.items()}


def _quarantines(session: Session) -> tuple[Quarantine, ...]:
    rows = session.scalars(select(QuarantineRow).order_by(QuarantineRow.id))
    return tuple(Quarantine(q.group_id, q.model, q.version, q.reason) for q in rows)
