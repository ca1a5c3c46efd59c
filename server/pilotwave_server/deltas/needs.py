"""Which pairs of blobs the fleet needs deltas for. Pure: it takes what runs and what is to come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pilotwave_protocol.digest import EMPTY_SHA256
from pilotwave_protocol.manifest import FileEntry, Variant
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.fallbacks import standing
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot

MIN_SIZE = 2 << 10
"""Smaller files are sent whole."""
MOST_SOURCES = 8
"""For a version to come, deltas are made from so many of the versions that run, by devices."""


class Running(NamedTuple):
    """How many devices run a version's variant, by what they said last."""

    model: str
    version: str
    variant: str
    devices: int


class Pair(NamedTuple):
    """Two blobs between which a delta is wanted. `old` is EMPTY_SHA256 for a first install."""

    model: str
    old: str
    new: str
    size: int


def needed(snapshot: FleetSnapshot, running: Iterable[Running]) -> Iterator[Pair]:
    """Yield each pair once, those for most devices first."""
    seen: set[tuple[str, str]] = set()
    sources: dict[str, list[Running]] = {}
    for source in sorted(running, key=lambda r: -r.devices):
        sources.setdefault(source.model, []).append(source)
    for target in to_come(snapshot):
        known = sources.get(target.model, [])[:MOST_SOURCES]
        for pair in _pairs(snapshot.versions, target, known):
            if (pair.old, pair.new) not in seen:
                seen.add((pair.old, pair.new))
                yield pair


def to_come(snapshot: FleetSnapshot) -> list[Released]:
    """Return the versions that devices are told to run, or may soon be: each model's newest.

    What a group was told to run before is only fallen back on, mostly from a device's own disk.
    """
    offered = {
        key: [variant.name for variant in v.variants]
        for key, v in snapshot.versions.items()
        if _may_be_offered(v)
    }
    barred = {(q.group_id, q.model, q.version) for q in snapshot.quarantines}
    told = (b for group in snapshot.baselines.values() for b in group)
    wanted = {(b.model, b.version) for b in standing(told, offered, barred=barred, depth=1)}
    wanted |= {(r.model, r.version) for some in snapshot.rollouts.values() for r in some}
    newest = {v.model: v for v in snapshot.versions.values() if _may_be_offered(v)}
    wanted |= {(v.model, v.version) for v in newest.values()}
    found = (snapshot.versions.get(key) for key in sorted(wanted))
    return [v for v in found if v is not None and _may_be_offered(v)]


def _may_be_offered(version: Released) -> bool:
    return version.listed and version.yanked is None and version.denied is None


def _pairs(
    versions: Mapping[tuple[str, str], Released], target: Released, sources: list[Running]
) -> Iterator[Pair]:
    for variant in target.variants:
        for source in (s for s in sources if s.variant == variant.name):
            before = versions.get((source.model, source.version))
            old = before and next((v for v in before.variants if v.name == source.variant), None)
            if old:
                yield from _of_variants(target.model, old, variant)
        for entry in variant.files:
            if entry.size >= MIN_SIZE:
                yield Pair(target.model, EMPTY_SHA256, entry.sha256, entry.size)


def _of_variants(model: str, old: Variant, new: Variant) -> Iterator[Pair]:
    before = {entry.path: entry for entry in old.files}
    have = {entry.sha256 for entry in old.files}
    for entry in new.files:
        source: FileEntry | None = before.get(entry.path)
        if source and entry.size >= MIN_SIZE and entry.sha256 not in have:
            yield Pair(model, source.sha256, entry.sha256, entry.size)
