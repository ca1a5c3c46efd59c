"""Read what the fleet's offline keys and publishers have signed, out of python-tuf's trusted set.

What these facts allow is `verify_directive`'s to say. How metadata is fetched, locked and kept on
disk is for whoever holds the updater.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tuf.api.metadata import Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient.updater import Updater

from pilotwave_protocol import names, rolebounds
from pilotwave_protocol.errors import BadName, BadTrustData, RefusedError
from pilotwave_protocol.fields import parse_time
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import DirectorKeys, ModelPolicy, ModelReset, VersionTarget


# python-tuf has no public way to read a role that it trusts; a test fails when these private ones
# go.
def root_of(updater: Updater) -> Root:
    """Return the trusted root."""
    return updater._trusted_set.root


def timestamp_of(updater: Updater) -> Timestamp:
    """Return the trusted timestamp."""
    return updater._trusted_set.timestamp


def snapshot_of(updater: Updater) -> Snapshot:
    """Return the trusted snapshot."""
    return updater._trusted_set.snapshot


def targets_of(updater: Updater) -> Targets:
    """Return the trusted top-level targets."""
    return updater._trusted_set.targets


def role_of(updater: Updater, name: str) -> Targets | None:
    """Return a trusted delegated role; None before something was looked up in it."""
    found = updater._trusted_set.get(name)
    return found if isinstance(found, Targets) else None


def signed_moment(signed: Signed) -> datetime | None:
    """Return when a role says it was signed; a missing or impossible moment proves nothing."""
    fields: Mapping[str, Any] = signed.unrecognized_fields
    try:
        moment = parse_time(fields["signed_at"])
    except (KeyError, TypeError, ValueError):
        return None
    return moment if moment < signed.expires else None


class SignedFacts:
    """What a refreshed updater trusts, in Pilotwave's words: the view that `verify` asks.

    Roles of models are fetched and verified when they are asked for, so each lookup can raise
    `RefusedError`.
    """

    def __init__(self, updater: Updater, time_floor: datetime) -> None:
        self._updater = updater
        self.time_floor = time_floor
        """The earliest moment that it can be now."""

    @property
    def snapshot_version(self) -> int:
        """The snapshot's version; a directive may demand a lowest one."""
        return snapshot_of(self._updater).version

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
        found = self._looked_up(path)
        self._check_reset(path)
        return found

    def _looked_up(self, path: str) -> TargetFile | None:
        return self._updater.get_targetinfo(path)

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
