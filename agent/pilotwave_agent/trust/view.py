"""Keep this device's trusted view of the fleet's TUF metadata.

TUF verifies signatures, versions, digests and expiry. Added around it: one user at a time, root of
trust from the device's own bytes each time, a time floor against stuck clocks, a memory of versions
that survives a lost cache, everything on disk before anyone acts on it, and one reason for each
"no". Reading the facts is `signed_facts`', judging by them `verify_directive`'s.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile
from tuf.ngclient.updater import Updater

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.trust.refresh import Refresh, top_level
from pilotwave_agent.trust.refusals import refusals
from pilotwave_agent.trust.store import TrustStore
from pilotwave_agent.trust.timefloor import BUILD_FLOOR, earliest
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.fields import MAX_INT
from pilotwave_protocol.signed_facts import SignedFacts, root_of, signed_moment, timestamp_of
from pilotwave_protocol.states import Reason

if TYPE_CHECKING:
    from pilotwave_agent.trust.tuf_fetcher import Fetcher


LONGEST_TRUST = timedelta(days=15)
"""Half the life of the longest timestamp (30 days, at sites without a network): a date far away
must not keep a device from asking."""


class TrustedMetadata:
    """The way to a `TrustedView`: ask the registry, believe only what is signed."""

    @staticmethod
    def refresh(
        dir: Path,
        bootstrap: bytes,
        fetcher: Fetcher,
        floor: datetime = BUILD_FLOOR,
        *,
        metadata: str = "/tuf/metadata/",
        targets: str = "/tuf/targets/",
        memory: Path | None = None,
        now: datetime | None = None,
        disk: Disk | None = None,
    ) -> TrustedView:
        """Bring the cache in `dir` up to date and return what it says.

        `bootstrap` is the root document this device was enrolled with. `metadata` is the path where
        `timestamp.json` is, `targets` where manifests are. `floor` is the build's only: what signed
        documents add to it is kept in the `memory` file (default: `../trust/tuf.json` beside
        `dir`), and `TrustedView.time_floor` gives the sum. Raises `RefusedError`; the view before
        stays good on disk then.
        """
        remembered_in = memory or Path(dir).parent / "trust" / "tuf.json"
        store = TrustStore(Path(dir), remembered_in, disk or Disk())
        refresh = Refresh(
            store, metadata, bootstrap, fetcher, floor, now or datetime.now(timezone.utc)
        )
        with refusals(), store.opened():
            updater, remembered = fetcher.honest(refresh.run)
        return TrustedView(store, updater, fetcher, targets, earliest(remembered.floor, floor))


class TrustedView(SignedFacts):
    """What the fleet's offline keys and publishers have signed, as of the last refresh. One view
    serves one process, one thread.
    """

    def __init__(
        self,
        store: TrustStore,
        updater: Updater,
        fetcher: Fetcher,
        targets: str,
        time_floor: datetime,
    ) -> None:
        super().__init__(updater, time_floor)
        self._store, self._fetcher = store, fetcher
        self._targets = targets

    def versions(self) -> dict[str, int]:
        """Return the versions of root, timestamp and snapshot, as check-ins report them: a thief of
        the online key may have signed higher ones than any message can hold."""
        roles = top_level(self._updater)
        found = {role: roles[role].version for role in ("root", "timestamp", "snapshot")}
        return {role: min(version, MAX_INT) for role, version in found.items()}

    @property
    def expires(self) -> dict[str, datetime]:
        """When each top-level role ends."""
        return {role: signed.expires for role, signed in top_level(self._updater).items()}

    @property
    def refresh_after(self) -> datetime:
        """The middle of the timestamp's life, or `LONGEST_TRUST` after it was signed: refresh by
        then even if no hint says so."""
        timestamp = timestamp_of(self._updater)
        begun = signed_moment(timestamp) or min(self.time_floor, timestamp.expires)
        return begun + min((timestamp.expires - begun) / 2, LONGEST_TRUST)

    def _looked_up(self, path: str) -> TargetFile | None:
        with refusals(), self._store.opened():
            return self._fetcher.honest(lambda: self._updater.get_targetinfo(path))

    def fetch(self, path: str, *, hash_prefix: bool = True) -> bytes:
        """Return the verified bytes of a small target, such as a version's manifest.

        `hash_prefix` says that the file is served as `<dir>/<digest>.<name>` where the fleet uses
        consistent snapshots, which all of Pilotwave's do.
        """
        target = self.target(path)
        if target is None:
            raise RefusedError(Reason.TARGET_UNKNOWN, f"nobody entitled has signed {path}")
        served = path
        if hash_prefix and root_of(self._updater).consistent_snapshot:
            folder, slash, name = path.rpartition("/")
            served = f"{folder}{slash}{next(iter(target.hashes.values()))}.{name}"

        def verified() -> bytes:
            data = self._fetcher.download_bytes(self._targets + served, target.length)
            target.verify_length_and_hashes(data)
            return data

        with refusals(Reason.TARGET_MISMATCH):
            return self._fetcher.honest(verified)
