"""One refresh of TUF metadata: python-tuf's client, a time floor under it, a memory behind it.

python-tuf verifies signatures, versions, digests and expiry against its cache. Here it is told the
time, and what it accepted is held against the memory, which survives a lost cache. Locking, fsync
and the words for a "no" are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import ExpiredMetadataError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.ngclient.updater import Updater

from pilotwave_agent.trust import memory as trust_memory
from pilotwave_agent.trust.memory import Signers, TufMemory
from pilotwave_agent.trust.store import TrustStore
from pilotwave_agent.trust.timefloor import earliest, next_floor
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.signed_facts import (
    root_of,
    signed_moment,
    snapshot_of,
    targets_of,
    timestamp_of,
)
from pilotwave_protocol.states import Reason

if TYPE_CHECKING:
    from pilotwave_agent.trust.tuf_fetcher import Fetcher


@dataclass(frozen=True)
class Refresh:
    """One refresh: what it needs, and `run`."""

    store: TrustStore
    metadata: str
    bootstrap: bytes
    fetcher: Fetcher
    build: datetime
    now: datetime

    def run(self) -> tuple[Updater, TufMemory]:
        """Return a refreshed updater and the memory that is now on disk."""
        memory = trust_memory.load(self.store.memory)
        updater = self._updater()
        updater.refresh()
        kept = _still_valid(memory, root_of(updater))
        _check_rollback(updater, kept)
        fresh = _remember(updater, kept, self.store.cache)
        signed = signed_moment(timestamp_of(updater))
        fresh = replace(fresh, floor=next_floor(kept.floor, signed, self.now))
        self._check_expiry(updater, fresh.floor)
        if fresh != memory:
            trust_memory.save(self.store.disk, self.store.memory, fresh)
        return updater, fresh

    def _updater(self) -> Updater:
        updater = Updater(
            str(self.store.cache),
            self.metadata,
            fetcher=self.fetcher,
            bootstrap=self.bootstrap,
        )
        # not by the floor yet: it may rest on the mistake that a newer timestamp takes back
        _set_time(updater, max(self.now, self.build))
        return updater

    def _check_expiry(self, updater: Updater, floor: datetime | None) -> None:
        """Judge all roles by what the timestamp proves about the time."""
        moment = max(self.now, earliest(floor, self.build))
        for role, signed in top_level(updater).items():
            if signed.is_expired(moment):
                raise ExpiredMetadataError(f"{role}.json is expired")
        _set_time(updater, moment)


# python-tuf has no public way to give it the time; a test fails when this private one goes.
def _set_time(updater: Updater, moment: datetime) -> None:
    updater._trusted_set.reference_time = moment


def top_level(updater: Updater) -> dict[str, Signed]:
    """Return the four top-level roles of a refreshed updater."""
    return {
        Root.type: root_of(updater),
        Timestamp.type: timestamp_of(updater),
        Snapshot.type: snapshot_of(updater),
        Targets.type: targets_of(updater),
    }


def _still_valid(memory: TufMemory, root: Root) -> TufMemory:
    """Forget what rests on keys that root has replaced (fast-forward recovery)."""
    timestamp, snapshot = root.roles[Timestamp.type], root.roles[Snapshot.type]
    if not memory.timestamp_signers.still_trusted(timestamp.keyids, timestamp.threshold):
        memory = memory.without_timestamp()
    if not memory.snapshot_signers.still_trusted(snapshot.keyids, snapshot.threshold):
        memory = memory.without_roles()
    return memory


def _check_rollback(updater: Updater, memory: TufMemory) -> None:
    timestamp, snapshot = timestamp_of(updater), snapshot_of(updater)
    _not_below("root", root_of(updater).version, memory.root)
    _not_below("timestamp", timestamp.version, memory.timestamp)
    _not_below("snapshot", snapshot.version, memory.snapshot)
    for role, version in memory.roles.items():
        meta = snapshot.meta.get(f"{role}.json")
        _not_below(role, meta.version if meta else 0, version)


def _not_below(role: str, version: int, trusted: int) -> None:
    if version < trusted:
        sentence = f"{ascii(role)[1:-1][:80]}: expected version {trusted} or later; got {version}"
        raise RefusedError(Reason.METADATA_ROLLBACK, sentence)


def _remember(updater: Updater, memory: TufMemory, cache: Path) -> TufMemory:
    root, timestamp, snapshot = root_of(updater), timestamp_of(updater), snapshot_of(updater)
    if timestamp.version != memory.timestamp:
        signers = _signers(root, Timestamp.type, cache)
        memory = replace(memory, timestamp=timestamp.version, timestamp_signers=signers)
    roles = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
    if snapshot.version != memory.snapshot or roles != memory.roles:
        signers = _signers(root, Snapshot.type, cache)
        memory = replace(memory, snapshot=snapshot.version, roles=roles, snapshot_signers=signers)
    return replace(memory, root=root.version)


def _signers(root: Root, role: str, cache: Path) -> Signers:
    md: Metadata[Any] = Metadata.from_bytes((cache / f"{role}.json").read_bytes())
    result = root.get_verification_result(role, md.signed_bytes, md.signatures)
    return Signers(frozenset(result.signed))
