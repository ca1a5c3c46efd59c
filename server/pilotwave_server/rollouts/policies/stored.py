"""A policy as a rollout keeps it: complete, in seconds and shares, as plain JSON.

What a person writes is `parse.py`'s. A rollout stores the values that came of it, defaults and all,
so that no later change of a default changes a rollout under way. A policy with shadow waves lies
one level deeper, where a server from before them finds no policy at all: it would leave the word
out, and switch the devices of such a wave.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from pilotwave_server.rollouts.policies.choose import Choose
from pilotwave_server.rollouts.policies.parse import POLICY
from pilotwave_server.rollouts.policies.policy import Policy

_CHOOSE = TypeAdapter(Choose)
_WITH_SHADOWS = "with_shadow_waves"


def store_policy(policy: Policy) -> dict[str, Any]:
    """Return the policy as it is kept, for `stored_policy`."""
    plain = plain_policy(policy)
    return {_WITH_SHADOWS: plain} if policy.first_switching else plain


def plain_policy(policy: Policy) -> dict[str, Any]:
    """Return the policy as plain JSON, for people and `parse_policy`."""
    found: dict[str, Any] = POLICY.dump_python(policy, mode="json")
    return found


def stored_policy(document: Mapping[str, Any]) -> Policy:
    """Return the policy that `store_policy` stored. What is missing has its default, what is not
    known is left out. No kind and no rule is asked again: a stricter server reads it too."""
    return POLICY.validate_python(document.get(_WITH_SHADOWS, document))


def store_choose(choose: Choose) -> dict[str, Any]:
    """Return a part of a policy as plain JSON, for `stored_choose`."""
    found: dict[str, Any] = _CHOOSE.dump_python(choose, mode="json")
    return found


def stored_choose(document: Mapping[str, Any] | None) -> Choose | None:
    """Return what `store_choose` stored; None of nothing."""
    return None if document is None else _CHOOSE.validate_python(document)
