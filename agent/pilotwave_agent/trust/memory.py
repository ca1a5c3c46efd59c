"""Remember which TUF versions this device has trusted, outside TUF's own cache.

A device that loses its cache would take older metadata that has not expired yet. This memory says
no then. It holds as long as TUF itself would hold its cached files: when root replaces the keys
that had signed them, it is void, because that is how a fleet recovers from a fast-forward attack
(TUF specification 5.3.11). The memory is a value; `load` and `save` keep it in one file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import BadJson, ProtocolError
from pilotwave_protocol.fields import Fields, format_time

logger = logging.getLogger(__name__)
_SCHEMA = "pilotwave/tuf-memory/1"
_MAX_BYTES = 4 << 20
_MAX_VERSION = 10**31  # a fast-forward attack may use numbers far beyond any real version


class BadMemory(ProtocolError):
    """A memory file that is not what `save` writes."""

    code = "bad_memory"


@dataclass(frozen=True)
class Signers:
    """The keys whose signatures carried a role when it was last trusted."""

    keyids: frozenset[str] = frozenset()

    def still_trusted(self, keyids: Sequence[str], threshold: int) -> bool:
        """Say whether a document with these signatures would still pass under a role's keys."""
        return len(self.keyids & set(keyids)) >= threshold


@dataclass(frozen=True)
class TufMemory:
    """Trusted versions, who had signed for them, and the floor of the time, which rests on the
    signers of the timestamp."""

    root: int = 0  # holds for ever: nothing but a later root can replace a root
    timestamp: int = 0
    snapshot: int = 0
    timestamp_signers: Signers = field(default_factory=Signers)
    roles: Mapping[str, int] = field(default_factory=dict)
    snapshot_signers: Signers = field(default_factory=Signers)
    floor: datetime | None = None

    def without_timestamp(self) -> TufMemory:
        """Forget what rests on the timestamp key."""
        return replace(
            self,
            timestamp=0,
            snapshot=0,
            timestamp_signers=Signers(),
            floor=None,
        )

    def without_roles(self) -> TufMemory:
        """Forget what rests on the snapshot key."""
        return replace(self, roles={}, snapshot_signers=Signers())


def load(path: Path) -> TufMemory:
    """Read the memory; none yet, or one that cannot be read, is an empty one.

    TUF's cache still holds then, and a device that refused for ever could not be repaired.
    """
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return TufMemory()
    except (BadMemory, BadJson) as e:
        logger.warning("%s: started anew: %s", path, e)
        return TufMemory()


def save(disk: Disk, path: Path, memory: TufMemory) -> None:
    """Write the memory, on disk when this returns; a power cut leaves the old or the new."""
    disk.write_atomic(path, _to_bytes(memory))


def _to_bytes(memory: TufMemory) -> bytes:
    return strictjson.dumps(
        {
            "schema": _SCHEMA,
            "root": memory.root,
            "timestamp": min(memory.timestamp, _MAX_VERSION),
            "snapshot": min(memory.snapshot, _MAX_VERSION),
            "timestamp_signers": sorted(memory.timestamp_signers.keyids),
            "roles": {name: min(v, _MAX_VERSION) for name, v in memory.roles.items()},
            "snapshot_signers": sorted(memory.snapshot_signers.keyids),
            "floor_offline": None,  # for agents of before 2026-11-29, which kept two floors
            "floor_timestamp": format_time(memory.floor) if memory.floor else None,
        }
    )


def _parse(raw: bytes) -> TufMemory:
    f = Fields(strictjson.loads(raw, max_bytes=_MAX_BYTES), "", BadMemory)
    if f.raw("schema") != _SCHEMA:
        raise f.fail("schema", _SCHEMA, f.raw("schema"))
    roles = f.inner("roles")
    names = f.mapping("roles", limit=100_000)
    f.opt_time("floor_offline")
    memory = TufMemory(
        root=f.integer("root"),
        timestamp=f.integer("timestamp", high=_MAX_VERSION),
        snapshot=f.integer("snapshot", high=_MAX_VERSION),
        timestamp_signers=Signers(frozenset(f.texts("timestamp_signers", limit=64))),
        roles={name: roles.integer(name, high=_MAX_VERSION) for name in names},
        snapshot_signers=Signers(frozenset(f.texts("snapshot_signers", limit=64))),
        floor=f.opt_time("floor_timestamp"),
    )
    f.done()
    return memory
