"""Say in words whom a wave of a policy takes."""

from __future__ import annotations

from pilotwave_server.rollouts.policies.policy import Canary, Wave


def rule_of(wave: Wave) -> str:
    """Say in words whom a wave takes, and whether in shadow."""
    whom = _whom(wave)
    return whom if wave.shadow is None else f"{whom}, in shadow"


def _whom(wave: Wave) -> str:
    if wave.canary is not None:
        return _canary_rule(wave.canary)
    if wave.count is not None:
        return "1 device" if wave.count == 1 else f"{wave.count} devices"
    return f"{wave.percent:g} %"


def _canary_rule(canary: Canary) -> str:
    if canary.selector is not None:
        return f"those with {canary.selector}"
    if canary.group is not None:
        return f"those of the group {canary.group}"
    shown = ", ".join(canary.devices[:5])
    more = len(canary.devices) - 5
    return f"{shown} and {more} more" if more > 0 else shown
