"""Which of a group's baselines may still come to a device, of all that it was ever told to run.

Pure. A group's older baselines are what to fall back on, so of those that may be offered the newest
few count, and each older one that has a variant which none of the newer ones has: it may be all
that some of the group's devices can run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from pilotwave_server.rollouts.assignments.snapshot import Baseline

Barred = tuple[int | None, str, str]
"""A group's number (None: every group), a model and a version."""


def standing(
    baselines: Iterable[Baseline],
    offered: Mapping[tuple[str, str], Collection[str]],
    *,
    barred: Collection[Barred] = (),
    depth: int,
) -> Iterator[Baseline]:
    """Yield those that count, of baselines given newest first. `offered` are the variants' names of
    each version that may be offered, `barred` what is quarantined, `depth` how many are the newest
    few."""
    seen: dict[tuple[int, str], dict[str, Collection[str]]] = defaultdict(dict)
    for b in baselines:
        newer, variants = seen[b.group_id, b.model], offered.get((b.model, b.version))
        groups = (b.group_id, None)
        if variants is None or any((group, b.model, b.version) in barred for group in groups):
            continue
        known = {name for names in newer.values() for name in names}
        if b.version not in newer and (len(newer) < depth or set(variants) - known):
            newer[b.version] = variants
            yield b
