"""Keep this device's trusted view of the fleet's TUF metadata.

TUF verifies signatures, versions, digests and expiry. Added around it: one user at a time, root of
trust from the device's own bytes each time, a time floor against stuck clocks, a memory of versions
that survives a lost cache, everything on disk before anyone acts on it, and one reason for each
"no". What a verified version may do on the device is decided in `verify_directive`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile
from tuf.ngclient.updater import Updater

from pilotwave_agent.disk import Disk
from pilotwave_agent.refusals import refusals
from pilotwave_agent.timefloor import BUILD_FLOOR, earliest
from pilotwave_agent.tufrefresh import (
    Refresh,
    role_of,
    root_of,
    signed_moment,
    snapshot_of,
    targets_of,
    timestamp_of,
    top_level,
)
from pilotwave_agent.tufstore import TrustStore
from pilotwave_protocol import names, rolebounds
from pilotwave_protocol.errors import BadName, BadTrustData, RefusedError
from pilotwave_protocol.fields import MAX_INT
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import DirectorKeys, ModelPolicy, ModelReset, VersionTarget

if TYPE_CHECKING:
    from pilotwave_agent.fetcher import Fetcher


LONGEST_TRUST = timedelta(days=15)
"""Half the life of the longest timestamp (30 days, at sites without a network): a date far away
must not keep a device from asking."""


class TrustedMetadata:
    """The way to a `TrustedView`: ask the registry, believe only what is signed."""

    @staticmethod
    def refresh(
        dir: Path,
        metadata_url: str,
        bootstrap: bytes,
        fetcher: Fetcher,
        floor: datetime = BUILD_FLOOR,
        *,
        targets_url: str = "",
        memory: Path | None = None,
        now: datetime | None = None,
        disk: Disk | None = None,
    ) -> TrustedView:
        """Bring the cache in `dir` up to date and return what it says.

        `metadata_url` is where `timestamp.json` is (`<server>/tuf/metadata/`), `targets_url` where
        manifests are (`<server>/tuf/targets/`). `bootstrap` is the root document this device was
        enrolled with. `floor` is the build's only: what signed documents add to it is kept in the
        `memory` file (default: `../trust/tuf.json` beside `dir`), and `TrustedView.time_floor`
        gives the sum. Raises `RefusedError`; the view before stays good on disk then.
        """
        remembered_in = memory or Path(dir).parent / "trust" / "tuf.json"
        store = TrustStore(Path(dir), remembered_in, disk or Disk())
        refresh = Refresh(
            store, metadata_url, bootstrap, fetcher, floor, now or datetime.now(timezone.utc)
        )
        with refusals(), store.opened():
            updater, remembered = fetcher.honest(refresh.run)
        return TrustedView(store, updater, fetcher, targets_url, earliest(remembered.floor, floor))


class TrustedView:
    """What the fleet's offline keys and publishers have signed, as of the last refresh.

    Roles of models are fetched and verified when they are asked for, so each lookup can raise
    `RefusedError`. One view serves one process, one thread.
    """

    def __init__(
        self,
        store: TrustStore,
        updater: Updater,
        fetcher: Fetcher,
        targets_url: str,
        time_floor: datetime,
    ) -> None:
        self._store, self._updater, self._fetcher = store, updater, fetcher
        self._targets_url = targets_url if targets_url.endswith("/") else f"{targets_url}/"
        self.time_floor = time_floor
        """The earliest moment that it can be now."""

    @property
    def snapshot_version(self) -> int:
        """The snapshot's version; a directive may demand a lowest one."""
        return snapshot_of(self._updater).version

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

    def director(self) -> DirectorKeys:
        """Return who may sign directives. Only top-level targets can say so, no delegated role."""
        target = targets_of(self._updater).targets.get(names.DIRECTOR_PATH)
        if target is None:
            raise RefusedError(Reason.WRONG_KEY, "the fleet has published no director key")
        try:
            return DirectorKeys.from_custom(target.custom)
        except BadTrustData as e:
            raise RefusedError(Reason.METADATA_INVALID, str(e)) from e

    def version(self, model: str, version: str) -> VersionTarget | None:
        """Return what the publisher signed about a version; None if nobody entitled did."""
        path = names.target_path(model, version)
        target = self.target(path)
        if target is None:
            return None
        try:
            return self._entry(path, target)
        except (BadTrustData, BadName) as e:
            raise RefusedError(Reason.METADATA_INVALID, str(e)) from e

    def policy(self, model: str) -> ModelPolicy:
        """Return a model's floor and yanked digests; a publisher who signed none forbids none.

        A publisher's key may be stolen, and the server with it: a role that leaps in its numbers is
        refused, and of its yanks those count that are of versions it lists. One that it no longer
        lists is below its floor.
        """
        target = self.target(names.policy_path(model))
        try:
            policy = ModelPolicy.from_custom(target.custom) if target else ModelPolicy()
            listed = [self._entry(path, t) for path, t in self._versions(model).items()]
            rolebounds.check_role([e.counter for e in listed], policy, self.reset(model))
        except (BadTrustData, BadName) as e:
            raise RefusedError(Reason.METADATA_INVALID, f"the role of {model}: {e}") from e
        return replace(policy, yanked=policy.yanked.intersection(e.sha256 for e in listed))

    def reset(self, model: str) -> ModelReset | None:
        """Return what the targets role says in place of a stolen publisher key, if it ever did."""
        target = targets_of(self._updater).targets.get(names.reset_path(model))
        try:
            return None if target is None else ModelReset.from_custom(target.custom)
        except (BadTrustData, BadName) as e:
            raise RefusedError(Reason.METADATA_INVALID, str(e)) from e

    def _versions(self, model: str) -> dict[str, TargetFile]:
        """Return what a model's role lists beside its policy, after it was looked up."""
        role = role_of(self._updater, names.role_for_model(model))
        listed = role.targets if role else {}
        return {path: t for path, t in listed.items() if path != names.policy_path(model)}

    def _entry(self, path: str, target: TargetFile) -> VersionTarget:
        return VersionTarget.from_target(
            path, length=target.length, hashes=target.hashes, custom=target.custom
        )

    def target(self, path: str) -> TargetFile | None:
        """Look one TUF target up, through the delegations that are trusted for its path."""
        with refusals(), self._store.opened():
            found = self._fetcher.honest(lambda: self._updater.get_targetinfo(path))
        self._check_reset(path)
        return found

    def _check_reset(self, path: str) -> None:
        """Refuse a role's document that a reset has put aside, should the online key offer it."""
        model = path.split("/")[1] if path.startswith("models/") else ""
        reset = self.reset(model) if model else None
        role = role_of(self._updater, names.role_for_model(model)) if reset else None
        if reset and role and role.version < reset.role_version:
            sentence = (
                f"the role of {model}: expected version {reset.role_version} or later after its"
                f" reset; got {role.version}"
            )
            raise RefusedError(Reason.METADATA_ROLLBACK, sentence)

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
            data = self._fetcher.download_bytes(self._targets_url + served, target.length)
            target.verify_length_and_hashes(data)
            return data

        with refusals(Reason.TARGET_MISMATCH):
            return self._fetcher.honest(verified)
