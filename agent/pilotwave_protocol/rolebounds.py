"""Bound what one publisher key may say, so that a stolen one leaves room for its owner.

Both ends hold a model's role against these rules: the server before it accepts a document, a device
before it remembers anything of one, since the server may be stolen too. What the server alone can
know (every version that was ever published) is checked there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pilotwave_protocol.errors import BadTrustData
from pilotwave_protocol.trust import ModelPolicy, ModelReset

MAX_COUNTER_STEP = 1000
"""How far a release counter may be above the one before it."""
MAX_COUNTER = 2**52
"""No release counter or floor is above this; numbers go on to 2^53 - 1."""


def check_counters(counters: Iterable[int], *, above: int) -> None:
    """Refuse a counter that leaps; `above` is where they start from. Raises `BadTrustData`."""
    last = above
    for counter in sorted(counters):
        if counter > min(last + MAX_COUNTER_STEP, MAX_COUNTER):
            most = min(last + MAX_COUNTER_STEP, MAX_COUNTER)
            raise BadTrustData(
                f"expected a release counter of at most {most} after {last}; got {counter}"
            )
        last = counter


def check_role(
    counters: Collection[int], policy: ModelPolicy, reset: ModelReset | None = None
) -> None:
    """Hold a role's document against what it says itself. `counters` are those of its versions.

    Versions below the floor may have been taken off, so counters are compared from the floor on;
    those that a reset left are compared with nothing. A floor one above the newest counter was
    accepted once, and still is.
    """
    left = reset.counter if reset else 0
    newest = max([*counters, left])
    if newest > MAX_COUNTER:
        raise BadTrustData(f"expected release counters of at most {MAX_COUNTER}; got {newest}")
    if policy.floor > newest + 1:
        raise BadTrustData(f"expected a floor of at most {newest}; got {policy.floor}")
    rising = sorted(c for c in counters if c > left and c >= policy.floor)
    whole = policy.floor <= left + 1
    check_counters(rising, above=left if whole or not rising else rising[0])
