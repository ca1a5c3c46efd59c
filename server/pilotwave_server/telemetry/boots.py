"""Notice two machines that use one device's key. Pure.

Each start of an agent has a random name. A machine that starts again never comes back under an
earlier one; two machines that were copied from one image take turns, so one of their names comes
back at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

KEPT = 8


class Boots(NamedTuple):
    """The names of the last starts, the present one first; whether the present one is an earlier
    one that came back, and whether it is another than at the last report."""

    names: list[str]
    came_back: bool
    changed: bool


def after(known: Sequence[str], boot: str | None) -> Boots:
    """Return the starts after a report of `boot`; None: its agent is too old to say."""
    if boot is None or known[:1] == [boot]:
        return Boots(list(known), came_back=False, changed=False)
    names = [boot, *(name for name in known if name != boot)][:KEPT]
    return Boots(names, came_back=boot in known, changed=bool(known))
