"""What a server process remembers of a device between its polls. Small: there may be a million."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from zlib import crc32

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.directive import Entry, set_digest
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.leases import Took

Capabilities = tuple[tuple[str, Scalar], ...]
NO_LEASES: frozenset[int] = frozenset()
NO_TOOK: Took = frozenset()


class Profile(NamedTuple):
    """What devices have in common that are to run the same: groups and what fits them."""

    groups: frozenset[int]
    capabilities: Capabilities


class Personal(NamedTuple):
    """What operators said of one device alone."""

    pins: Mapping[str, str]
    attempts: Mapping[str, int]


class Order:
    """A set of entries, shared by all devices that have it, with what is derived from it."""

    __slots__ = ("_etags", "blobs", "digest", "entries", "remove")

    def __init__(
        self, entries: tuple[Entry, ...], blobs: frozenset[str], remove: tuple[str, ...] = ()
    ) -> None:
        self.entries = entries
        self.blobs = blobs
        self.remove = remove
        self.digest = set_digest(entries, remove)
        self._etags: dict[tuple[int, str], bytes] = {}

    def etag(self, period: int, director: str) -> bytes:
        """Return the ETag in an expiry period, with the quotes that HTTP wants."""
        etag = self._etags.get((period, director))
        if etag is None:
            if len(self._etags) > 8:
                self._etags = {}
            text = sha256_hex(f"{self.digest} {period} {director}".encode())
            etag = self._etags[period, director] = f'"{text[:16]}"'.encode()
        return etag

    def etag_of(self, seq: int, period: int, director: str) -> bytes:
        """Return the ETag for a device that refused a set: it changes with each `seq`, too, because
        the number, or what it stands for, may be what the device refused."""
        return self.etag(period, f"{director} {seq}")


class DeviceRecord:
    """One device. `order` is valid for the snapshot `ordered_in`, `etag` until `etag_until`.

    `token` is the last one whose mac was found good. `wants` are the rollouts, by row number, that
    would let it in and that it has no lease of; `leases` those that it has one of, `took` those
    that would take it back, `shadows` those that let it try in shadow. What it wants is asked for
    again after `asks_after`. `site` is its label, empty without one. `refusing` says that it
    refused the last set that it was offered, as far as this process heard; `conflict` that two
    machines use its key.
    """

    __slots__ = (
        "asks_after",
        "bucket",
        "conflict",
        "etag",
        "etag_until",
        "generation",
        "id",
        "leases",
        "name",
        "note_after",
        "order",
        "ordered_in",
        "personal",
        "profile",
        "public_key",
        "reading_key",
        "refusing",
        "revision",
        "seen",
        "shadows",
        "site",
        "state",
        "token",
        "took",
        "wants",
    )

    def __init__(
        self,
        *,
        id: int,
        name: str,
        state: str,
        generation: int,
        revision: int,
        public_key: bytes,
        profile: Profile,
        reading_key: str,
        personal: Personal | None,
        leases: frozenset[int] = NO_LEASES,
        took: Took = NO_TOOK,
        shadows: Took = NO_TOOK,
        bucket: int = 0,
        site: str = "",
        refusing: bool = False,
        conflict: bool = False,
    ) -> None:
        self.id = id
        self.name = name
        self.state = state
        self.generation = generation
        self.revision = revision
        self.public_key = public_key
        self.profile = profile
        self.reading_key = reading_key
        self.personal = personal
        self.leases = leases
        self.took = took
        self.shadows = shadows
        self.bucket = bucket
        self.site = site
        self.refusing = refusing
        self.conflict = conflict
        self.wants: tuple[int, ...] = ()
        self.asks_after = 0.0
        self.order: Order | None = None
        self.ordered_in: FleetSnapshot | None = None
        self.etag = b""
        self.etag_until = 0.0
        self.token = b""
        self.seen = 0.0
        self.note_after = 0.0

    def heard(self, *, refusing: bool) -> None:
        """Take in whether the device refuses what it was offered."""
        if refusing != self.refusing:
            self.refusing, self.etag_until = refusing, 0.0

    # Made anew when they are needed, which is when something changed: a million of each is dear.

    @property
    def seq(self) -> int:
        """The number of its directive."""
        return max(self.revision, self.ordered_in.revision if self.ordered_in else 0)

    @property
    def offer(self) -> str:
        """Changes when the device should ask again: with its set or, if it refused that, its
        number. It has an order."""
        digest = self.order.digest if self.order else ""
        return f"{digest} {self.seq}" if self.refusing else digest

    @property
    def phase(self) -> int:
        """Spreads the renewal of directives over time, so that a fleet does not ask all at once."""
        return crc32(self.name.encode())
