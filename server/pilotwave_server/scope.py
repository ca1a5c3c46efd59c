"""What a token of limited scope may change: what names one of its models and one of its groups.

Reading is the role's matter alone. A change that names neither (a code, a policy) is no change
within any limits, so a limited token cannot make it; nor may it change who is in a group (members,
selectors, labels), for that would widen its own limits. Uploading bytes is let pass: they are worth
nothing until a version of an allowed model lists them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import Forbidden
from pilotwave_server.groups.service import groups_of
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.operators.roles import Actor
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.routing import API

BYTES = re.compile(rf"{API}/blobs/.*")
WITHIN_A_GROUP = re.compile(rf"{API}/(?:groups/[^/]+/baselines|devices/[^/]+/models)/.*")


class ScopeForbids(Forbidden):
    """The token's scope does not take in what it was used for."""

    code: ClassVar[str] = "scope_forbids"


@dataclass(frozen=True)
class Touched:
    """What a change names. `groups` are those of which one has to be allowed; None: none named."""

    model: str | None = None
    groups: Collection[str] | None = None


def check_scope(actor: Actor, touched: Touched) -> None:
    """ScopeForbids unless the actor may change this."""
    if actor.models is not None:
        if touched.model is None:
            raise ScopeForbids(f"{actor} may change only what belongs to {_listed(actor.models)}")
        if touched.model not in actor.models:
            raise ScopeForbids(
                f"{actor} may change only {_listed(actor.models)}, not {touched.model}",
            )
    if actor.groups is not None and actor.groups.isdisjoint(touched.groups or ()):
        raise ScopeForbids(f"{actor} may change only what belongs to {_listed(actor.groups)}")


def touched_by_path(session: Session, path: str, names: dict[str, str]) -> Touched | None:
    """What a request's path names; None: a change that needs no limits."""
    if BYTES.fullmatch(path):
        return None
    if "rollout" in names:
        return _of_rollout(session, names["rollout"])
    groups: Collection[str] | None = None
    if not WITHIN_A_GROUP.fullmatch(path):
        return Touched(names.get("model"))
    if "group" in names:
        groups = [names["group"]]
    if "device" in names:
        row = session.scalars(
            select(DeviceRow).where(DeviceRow.name == names["device"])
        ).one_or_none()
        groups = [] if row is None else [group.name for group in groups_of(session, row)]
    return Touched(names.get("model"), groups)


def _of_rollout(session: Session, name: str) -> Touched:
    if not re.fullmatch(r"r[1-9][0-9]{0,17}", name):
        return Touched()
    query = (
        select(RolloutRow.model, GroupRow.name)
        .join(GroupRow, GroupRow.id == RolloutRow.group_id)
        .where(RolloutRow.id == int(name[1:]))
    )
    found = session.execute(query).one_or_none()
    return Touched() if found is None else Touched(found[0], [found[1]])


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
