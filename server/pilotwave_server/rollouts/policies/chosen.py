"""Find the policy that a rollout is to have: one by name, or one handed in with the rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.errors import Invalid, NotFound
from pilotwave_server.rollouts.policies.document import Policy
from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.tables import PolicyRow


class PolicyUnknown(NotFound):
    code: ClassVar[str] = "policy_unknown"


class OnePolicy(Invalid):
    code: ClassVar[str] = "one_policy"


def chosen_policy(
    session: Session,
    *,
    name: str | None,
    version: int | None,
    document: Mapping[str, Any] | None,
) -> tuple[Policy, int]:
    """Return the policy and its version, 0 for a `document`.

    Raises PolicyUnknown, OnePolicy and PolicyInvalid.
    """
    if (name is None) == (document is None):
        raise OnePolicy("expected either `policy`, a name, or `document`")
    if document is not None:
        return parse_policy(document), 0
    p = PolicyRow
    query = select(p).where(p.name == name)
    if version is not None:
        query = query.where(p.version == version)
    row = session.scalars(query.order_by(p.version.desc()).limit(1)).one_or_none()
    if row is None:
        raise PolicyUnknown(f"there is no policy {name}")
    return stored_policy(row.document), row.version


def policy_names(session: Session) -> list[str]:
    """The names of all policies that a rollout may have."""
    return list(session.scalars(select(PolicyRow.name).distinct().order_by(PolicyRow.name)))
