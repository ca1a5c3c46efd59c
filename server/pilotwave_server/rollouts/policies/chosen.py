"""Find the policy that a rollout is to have: one by name, or one handed in with the rollout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.errors import Invalid, NotFound
from pilotwave_server.rollouts.policies.builtin import TEXTS, builtin
from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.policies.yaml_text import read_text
from pilotwave_server.rollouts.tables import PolicyRow


class PolicyUnknown(NotFound):
    code: ClassVar[str] = "policy_unknown"

    def __init__(
        self, name: str | None, version: int | None = None, known: Iterable[str] = TEXTS
    ) -> None:
        which = f"{name} version {version}" if version else name
        super().__init__(f"there is no policy {which}; built in are {', '.join(known)}")


class OnePolicy(Invalid):
    """A policy comes by name, as a document or as a text: exactly one of them."""

    code: ClassVar[str] = "one_policy"


def chosen_policy(
    session: Session,
    *,
    name: str | None,
    version: int | None,
    document: Mapping[str, Any] | None,
    text: str | None = None,
) -> tuple[Policy, int]:
    """Return the policy and its version, 0 for a `document`, a `text` and the built-in ones.

    Raises PolicyUnknown, OnePolicy and PolicyInvalid.
    """
    if sum(given is not None for given in (name, document, text)) != 1:
        raise OnePolicy("expected exactly one of `policy` (a name), `document` and `text`")
    if name is None:
        return read_policy(name=None, text=text, document=document), 0
    row = find_policy(session, name, version)
    if row is not None:
        return stored_policy(row.document), row.version
    found = builtin(name)
    if found is None or version:
        raise PolicyUnknown(name, version)
    return found, 0


def read_policy(
    *, name: str | None, text: str | None, document: Mapping[str, Any] | None
) -> Policy:
    """Return what one of `text` and `document` says. OnePolicy, PolicyInvalid."""
    if (text is None) == (document is None):
        raise OnePolicy("expected either `document` or `text`")
    if text is None:
        return parse_policy(document, name=name)
    data, lines = read_text(text)
    return parse_policy(data, name=name, lines=lines)


def find_policy(session: Session, name: str, version: int | None) -> PolicyRow | None:
    """The newest version that was saved under this name, or that version."""
    p = PolicyRow
    query = select(p).where(p.name == name)
    if version is not None:
        query = query.where(p.version == version)
    return session.scalars(query.order_by(p.version.desc()).limit(1)).one_or_none()


def policy_names(session: Session) -> list[str]:
    """The names of all policies that a rollout may have."""
    saved = session.scalars(select(PolicyRow.name).distinct())
    return sorted({*TEXTS, *saved})
