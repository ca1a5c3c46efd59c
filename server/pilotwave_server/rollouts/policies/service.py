"""Keep policies: each save of a changed text adds a version, none ever changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import lock_fleet
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.rollouts.policies.builtin import TEXTS, builtin
from pilotwave_server.rollouts.policies.chosen import PolicyUnknown, find_policy, read_policy
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.policies.stored import plain_policy, store_policy, stored_policy
from pilotwave_server.rollouts.tables import PolicyRow


@dataclass(frozen=True)
class Saved:
    """A policy as it is kept; version 0 and no author: built in."""

    policy: Policy
    version: int
    created_by: str | None = None
    created_at: datetime | None = None


def save_policy(
    session: Session,
    *,
    name: str,
    text: str | None,
    document: Mapping[str, Any] | None,
    actor: str,
    now: datetime,
) -> Saved:
    """Add the next version of a policy; the same again adds none. OnePolicy, PolicyInvalid."""
    policy = read_policy(name=name, text=text, document=document)
    lock_fleet(session)  # two who save at once shall not both add the same version
    newest = find_policy(session, name, None)
    kept = store_policy(policy)
    if newest is not None and newest.document == kept:
        return _saved(newest)
    version = 1 if newest is None else newest.version + 1
    row = PolicyRow(name=name, version=version, document=kept, created_by=actor, created_at=now)
    session.add(row)
    told = {"version": version, "policy": plain_policy(policy)}
    record(session, actor=actor, verb="policy.save", object=f"policy/{name}", now=now, after=told)
    return _saved(row)


def get_policy(session: Session, name: str, version: int | None = None) -> Saved:
    """The newest version of a policy, or an older one; version 0 is the built-in one.

    PolicyUnknown.
    """
    row = find_policy(session, name, version)
    if row is not None:
        return _saved(row)
    found = builtin(name)
    if found is None or version:
        raise PolicyUnknown(name, version)
    return Saved(found, 0)


def list_policies(session: Session, *, page: PageRequest) -> tuple[list[Saved], str | None]:
    """The newest version of each saved policy, by name; on the first page, the built-in ones that
    no saved one replaces stand before them."""
    p = PolicyRow
    newest = select(func.max(p.id)).group_by(p.name)
    rows, cursor = paginate(session, select(p).where(p.id.in_(newest)), keys=[p.name], page=page)
    saved = [_saved(row) for row in rows]
    if page.cursor is not None:
        return saved, cursor
    names = set(session.scalars(select(p.name).where(p.name.in_(TEXTS)).distinct()))
    own = [Saved(policy, 0) for name in TEXTS if name not in names and (policy := builtin(name))]
    return [*own, *saved], cursor


def count_policies(session: Session) -> int:
    """How many policies there are, saved and built in, each name once."""
    saved = session.scalar(select(func.count(PolicyRow.name.distinct()))) or 0
    replaced = select(func.count(PolicyRow.name.distinct())).where(PolicyRow.name.in_(TEXTS))
    return saved + len(TEXTS) - (session.scalar(replaced) or 0)


def list_versions(
    session: Session, name: str, *, page: PageRequest
) -> tuple[list[Saved], str | None]:
    """All versions of a policy, the newest first. PolicyUnknown."""
    get_policy(session, name)
    query = select(PolicyRow).where(PolicyRow.name == name)
    rows, cursor = paginate(session, query, keys=[PolicyRow.version], page=page, descending=True)
    return [_saved(row) for row in rows], cursor


def _saved(row: PolicyRow) -> Saved:
    return Saved(stored_policy(row.document), row.version, row.created_by, row.created_at)
