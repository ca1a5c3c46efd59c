"""What a token of limited scope may change: what names one of its models and one of its groups.

Reading is the role's matter alone. A change that names neither (a code, a policy) is no change
within any limits, so a limited token cannot make it; nor may it change who is in a group (members,
selectors, labels), for that would widen its own limits. Uploading bytes is let pass: they are worth
nothing until a version of an allowed model lists them.

A route says what it changes in its signature (`deps`). How to find what a device or a rollout
belongs to is left to their slices (`inventory/permissions.py`, `rollouts/permissions.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy.orm import Session

from pilotwave_server.errors import Forbidden
from pilotwave_server.operators.roles import Actor


class ScopeForbids(Forbidden):
    """The token's scope does not take in what it was used for."""

    code: ClassVar[str] = "scope_forbids"


@dataclass(frozen=True)
class Touched:
    """What a change names. `groups` are those of which one has to be allowed; None: none named."""

    model: str | None = None
    groups: Collection[str] | None = None


NOTHING = Touched()
"""What no limits take in."""


@dataclass(frozen=True)
class Resource:
    """What a route changes. `touched` finds it by the names in the path; None where the path does
    not say it: the route calls `check_scope` itself, or there is nothing to check."""

    name: str
    touched: Callable[[Session, Mapping[str, str]], Touched] | None


FLEET = Resource("fleet", lambda session, names: NOTHING)
MODEL = Resource("model", lambda session, names: Touched(names["model"]))
GROUP = Resource("group", lambda session, names: Touched(names["model"], [names["group"]]))
BYTES = Resource("bytes", None)
IN_BODY = Resource("named in the body", None)


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


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
