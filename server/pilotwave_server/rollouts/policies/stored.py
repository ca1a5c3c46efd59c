"""A policy as a rollout keeps it: complete, in seconds and shares, as plain JSON.

What a person writes is `parse.py`'s. A rollout stores the values that came of it, defaults and all,
so that no later change of a default changes a rollout under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from pilotwave_server.rollouts.policies.document import (
    Canary,
    Conditions,
    Deadlines,
    Gate,
    InstallGate,
    MetricGate,
    OnFailure,
    Pace,
    Policy,
    Wave,
    Window,
)

T = TypeVar("T")


def store_policy(policy: Policy) -> dict[str, Any]:
    """Return the policy as plain JSON, for `stored_policy`."""
    found: dict[str, Any] = _plain(asdict(policy))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, OnFailure) else value


def stored_policy(document: Mapping[str, Any]) -> Policy:
    """Return the policy that `store_policy` stored. What is missing has its default."""
    return _made(
        Policy,
        document,
        waves=tuple(_wave(wave) for wave in document["waves"]),
        on_failure=OnFailure(document.get("on_failure", OnFailure.ROLLBACK)),
        pace=_made(Pace, document.get("pace", {})),
        windows=tuple(_made(Window, window) for window in document.get("windows", ())),
        conditions=_made(Conditions, document.get("conditions", {})),
        deadlines=_made(Deadlines, document.get("deadlines", {})),
    )


def _wave(document: Mapping[str, Any]) -> Wave:
    canary = document.get("canary")
    return _made(
        Wave,
        document,
        canary=None if canary is None else _made(Canary, canary),
        gates=tuple(_gate(gate) for gate in document.get("gates", ())),
    )


def _gate(document: Mapping[str, Any]) -> Gate:
    if "metric" in document:
        return _made(MetricGate, document)
    return _made(InstallGate, document)


def _made(kind: type[T], document: Mapping[str, Any], **given: Any) -> T:
    """Make a dataclass of the document's fields, its lists as tuples; `given` wins."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # only dataclasses come here
    taken = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in document.items()
        if key in known
    }
    return kind(**{**taken, **given})
