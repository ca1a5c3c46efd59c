"""How the devices of a shadow wave try the version: beside the one that serves, switching nothing.

The order of a policy's waves is checked here too: shadow waves come first, and sizes rise among
those and among the waves that switch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from pilotwave_protocol.shadow import MOST_CALLS, Shadow
from pilotwave_server.rollouts.policies import kinds
from pilotwave_server.rollouts.policies.faults import Told
from pilotwave_server.rollouts.policies.read_part import PolicyPart


@dataclass(frozen=True)
class ShadowPart(PolicyPart):
    """`share` of a device's inputs are given to the candidate too, with at most `cpu` of one core;
    a device counts from `min_calls` paired calls on. `optional`: where no device can take part,
    the next wave opens all the same."""

    share: Annotated[float, kinds.share(0.00001, 1)] = 0.05
    cpu: Annotated[float, kinds.share(0.01, 8)] = 0.1
    min_calls: Annotated[int, kinds.whole(1, MOST_CALLS)] = 500
    optional: Annotated[bool, kinds.FLAG] = False

    @property
    def condition(self) -> Mapping[str, Any]:
        """What a device is told."""
        return Shadow(self.share, self.cpu, self.min_calls).to_plain()


def faults_of_order(
    shadows: Sequence[bool], sizes: Mapping[str, Sequence[float | None]]
) -> Iterator[Told]:
    """Yield what is wrong with the order of waves, of which `shadows` says which are shadow waves
    and `sizes` how large each is by percent or count (None: it is not sized so)."""
    switching = shadows.index(False) if False in shadows else len(shadows)
    for n in range(switching, len(shadows)):
        if shadows[n]:
            yield ("waves", n, "shadow"), "expected shadow waves before all waves that switch"
    for key, found in sizes.items():
        for kind in (True, False):
            sized = [(n, s) for n, s in enumerate(found) if s and shadows[n] is kind]
            for (_, before), (n, after) in pairwise(sized):
                if after <= before:
                    yield (
                        ("waves", n, key),
                        f"expected more than the {before:g} of the wave before, for waves only "
                        f"add devices; got {after:g}",
                    )
