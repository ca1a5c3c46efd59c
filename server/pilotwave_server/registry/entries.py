"""The rules for the entries of a model's role, steps 7 to 10 of `checks.py`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuf.api.metadata import TargetFile, Targets

from pilotwave_protocol import names, rolebounds
from pilotwave_protocol.errors import BadName, BadTrustData
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.trust import ModelPolicy, ModelReset, VersionTarget
from pilotwave_server.errors import Conflict, Invalid


class BadTargetPath(Invalid):
    code = "bad_target_path"


class OutsideDelegation(Invalid):
    code = "outside_delegation"


class BadHashes(Invalid):
    code = "bad_hashes"


class BadCustom(Invalid):
    code = "bad_custom"


class VersionExists(Conflict):
    """A version is immutable: make another one."""

    code = "version_exists"


class EntryRemoved(Conflict):
    code = "entry_removed"


class EntryChanged(Conflict):
    code = "entry_changed"


class Unyanked(Conflict):
    code = "unyanked"


class CounterNotRising(Conflict):
    code = "counter_not_rising"


class CounterLeaps(Invalid):
    """A thief of the publisher's key could use the numbers up."""

    code = "counter_leaps"


class BelowFloor(Conflict):
    code = "below_floor"


class YankedDigest(Conflict):
    code = "yanked_digest"


@dataclass(frozen=True)
class KnownVersion:
    """A version that was published before, whether its role still lists it or not."""

    version: str
    counter: int
    sha256: str


def check_path(path: str, *, model: str, delegator: Targets) -> None:
    """Step 7: our own pattern first, for a delegation's wildcard also matches `..`."""
    if path != names.policy_path(model):
        try:
            owner, _ = names.parse_target_path(path)
        except BadName as error:
            raise BadTargetPath(str(error)) from error
        if owner != model:
            raise OutsideDelegation(f"{ascii(path)[:100]}: this role is for {model} alone")
    delegated = delegator.get_delegated_role(names.role_for_model(model))
    if getattr(delegated, "is_delegated_path", lambda _: False)(path) is not True:
        raise OutsideDelegation(f"{ascii(path)[:100]}: not delegated to {model}'s role")


def versions_in(targets: Mapping[str, TargetFile], model: str) -> Iterable[tuple[str, TargetFile]]:
    """The version entries of a role, without its policy."""
    return [(p, t) for p, t in targets.items() if p != names.policy_path(model)]


def read_entry(path: str, target: TargetFile) -> VersionTarget:
    """Step 8: one entry, strictly."""
    if set(target.hashes) != {"sha256"}:
        raise BadHashes(
            f"{path}: expected exactly a sha256; got {ascii(sorted(target.hashes))[:80]}"
        )
    if set(target.unrecognized_fields) != {"custom"}:
        raise BadCustom(f"{path}: expected length, hashes and custom")
    try:
        entry = VersionTarget.from_target(
            path, length=target.length, hashes=target.hashes, custom=target.custom
        )
        f = Fields(target.custom, path, BadTrustData)
        for key in ("counter", "unsafe_format"):
            f.raw(key, None)
        if (yanked := f.opt_inner("yanked")) is not None:
            yanked.raw("reason")
            yanked.time("at")
            yanked.done()
        f.done()
    except (BadName, BadTrustData) as error:
        raise BadCustom(str(error)) from error
    return entry


def check_append_only(
    before: Mapping[str, VersionTarget], after: Mapping[str, VersionTarget], *, floor: int
) -> tuple[str, ...]:
    """Step 9. Returns the versions that were taken off the list, all of them below the floor."""
    pruned = []
    for path, old in before.items():
        new = after.get(path)
        if new is None:
            if old.counter >= floor:
                raise EntryRemoved(
                    f"{path}: only versions below the floor may be taken off; its counter is"
                    f" {old.counter}, the floor {floor}"
                )
            pruned.append(old.version)
            continue
        if (new.sha256, new.length) != (old.sha256, old.length):
            raise VersionExists(
                f"{old.model} {old.version} is published already, with other content",
                sha256=old.sha256,
            )
        if (new.counter, new.unsafe_format) != (old.counter, old.unsafe_format):
            raise EntryChanged(f"{path}: an entry never changes but to be yanked")
        if old.yanked is not None and new.yanked != old.yanked:
            raise Unyanked(f"{path}: a yank is for ever; publish a new version instead")
    return tuple(pruned)


def highest_counter(known: Iterable[KnownVersion], reset: ModelReset | None) -> int:
    """The release counter that the next version must be above."""
    removed = reset.yanked if reset else frozenset[str]()
    counters = [v.counter for v in known if v.sha256 not in removed]
    return max([reset.counter if reset else 0, *counters])


def check_new_versions(
    fresh: Sequence[VersionTarget],
    *,
    known: Sequence[KnownVersion],
    policy: ModelPolicy,
    reset: ModelReset | None = None,
) -> None:
    """Step 10. What was pruned counts as known: its number and its name stay taken. Of what a reset
    removed, the name does; numbers go on above those that it says."""
    taken = {names.version_key(v.version): v.version for v in known}
    highest = highest_counter(known, reset)
    removed = {v.counter for v in known if reset and v.sha256 in reset.yanked}
    for target in sorted(fresh, key=lambda t: t.counter):
        key = names.version_key(target.version)
        if key in taken:
            raise VersionExists(
                f"{target.model} {target.version} is the same version as {taken[key]},"
                " which is published already"
            )
        taken[key] = target.version
        if target.counter <= highest:
            raise CounterNotRising(
                f"{target.model} {target.version}: expected a counter above {highest};"
                f" got {target.counter}",
                highest=highest,
            )
        if target.counter in removed:
            raise CounterNotRising(
                f"{target.model} {target.version}: the counter {target.counter} was used by a"
                " version that a reset removed; take the next one",
                highest=target.counter,
            )
        try:
            rolebounds.check_counters([target.counter], above=highest)
        except BadTrustData as error:
            raise CounterLeaps(
                f"{target.model} {target.version}: {error}", highest=highest
            ) from error
        highest = target.counter
        if target.counter < policy.floor:
            raise BelowFloor(
                f"{target.model} {target.version}: its counter {target.counter} is below the"
                f" floor {policy.floor}"
            )
        if target.sha256 in policy.yanked:
            raise YankedDigest(f"{target.model} {target.version}: this very manifest was yanked")
