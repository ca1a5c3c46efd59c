"""Read what a person wrote as a policy: every key known, every value of its kind, all consistent.

What each place takes is `document.py`'s. Reading text is `yaml_text.py`'s. What the server wrote of
a policy (`stored.py`) is a policy too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pilotwave_server.rollouts.policies.faults import PolicyInvalid, Told, fault_at, told_by
from pilotwave_server.rollouts.policies.policy import Policy

POLICY = TypeAdapter(Policy)
T = TypeVar("T")


def parse_policy(
    data: Any, *, name: str | None = None, lines: Mapping[str, int] | None = None
) -> Policy:
    """Return the policy that `data` (plain JSON values) describes. PolicyInvalid."""
    return parse_as(POLICY, data, name=name, lines=lines)


def parse_as(
    kind: TypeAdapter[T],
    data: Any,
    *,
    name: str | None = None,
    lines: Mapping[str, int] | None = None,
) -> T:
    """Return what `data` describes of a kind of policy. PolicyInvalid.

    `name` is the name that it is to have; without it, the text has to say one. `lines` gives the
    line of each path.
    """
    told: list[Told] = []
    named = data.get("name") if isinstance(data, dict) else None
    if name is not None and named is None and isinstance(data, dict):
        data = {**data, "name": name}
    elif name is not None and named != name and isinstance(named, str) and named:
        told = [(("name",), f"expected `{name}`, as it is asked for; got `{named}`")]
    try:
        policy = kind.validate_python(data, context={"checks": True})
        if not told:
            return policy
    except ValidationError as error:
        told = told_by(error) + told
    raise PolicyInvalid([fault_at(loc, message, lines or {}) for loc, message in told])
