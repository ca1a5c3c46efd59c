"""Say what a device's outcome counts as for the wave that is open. Pure.

To a shadow wave, a device that tries the version has done all that it should. To a wave that
switches, it has not begun yet, and what failed in shadow has been judged before: else each failure
of many in shadow would stand beside the first few devices that switch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pilotwave_server.rollouts.leases import (
    DID_NOT,
    HEALTHY,
    IN_SHADOW,
    LEASED,
    SHADOW_LEASED,
    SHADOWING,
)
from pilotwave_server.rollouts.policies.policy import Policy

_TO_SHADOW_WAVE = {SHADOWING: HEALTHY, SHADOW_LEASED: LEASED}


def counts_as(policy: Policy, open_wave: int, outcome: str, wave: int) -> str | None:
    """Return what an `outcome` of a device of `wave` is to the open one; None: nothing."""
    if policy.in_shadow(open_wave):
        return _TO_SHADOW_WAVE.get(outcome, outcome)
    if outcome in IN_SHADOW or (outcome in DID_NOT and policy.in_shadow(wave)):
        return None
    return outcome


def counted_as(
    policy: Policy, open_wave: int, counted: Iterable[tuple[str, int, int]]
) -> Iterator[tuple[str, int]]:
    """Yield outcomes with numbers of devices, of such by outcome and wave; an outcome may come more
    than once."""
    for outcome, wave, number in counted:
        found = counts_as(policy, open_wave, outcome, wave)
        if found is not None:
            yield found, number
