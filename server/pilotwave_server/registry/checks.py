"""The rules for a model's role: which next document of it is accepted. Pure.

The steps are numbered as in docs/protocol.md; each raises its own error. Steps 1 and 2 (size, form,
type) are `documents.read_document`'s; what the manifests and blobs must be is `contents.py`'s.

    3 version is the next one          8 entries: only known fields, exactly a SHA-256
    4 signatures                       9 append-only: nothing changes but to be yanked
    5 expiry                          10 new versions: none seen before, counters rise, none leaps
    6 no delegations                  11 policy: only grows, within what was published
    7 paths

A role that comes with a reset by the targets role keeps to `resets.py` instead of steps 9 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from pilotwave_protocol import names
from pilotwave_protocol.trust import ModelPolicy, ModelReset, VersionTarget
from pilotwave_server.errors import Conflict, Forbidden, Invalid
from pilotwave_server.registry.entries import (
    KnownVersion,
    check_append_only,
    check_new_versions,
    check_path,
    read_entry,
    versions_in,
)
from pilotwave_server.registry.policy import check_policy, read_policy
from pilotwave_server.registry.resets import check_reset

MIN_LIFE = timedelta(days=7)
MAX_LIFE = {Targets.type: timedelta(days=400), Root.type: timedelta(days=800)}


class VersionClash(Conflict):
    """Another document came first. Read the current one, make the next, try again."""

    code = "version_clash"

    def __init__(self, role: str, *, current: int, got: int) -> None:
        super().__init__(
            f"{role}: expected version {current + 1}; got {got}: another document came first",
            current=current,
        )


class Unsigned(Forbidden):
    code = "metadata_unsigned"
    title = "The signatures do not suffice"


class ExpiryOutOfBounds(Invalid):
    code = "expiry_out_of_bounds"


class SubDelegation(Invalid):
    code = "sub_delegation"


@dataclass(frozen=True)
class RoleChange:
    """What an accepted role changes: versions that are new, newly yanked, no longer listed; with a
    reset also those that are listed again, and those whose yank it takes back."""

    new: tuple[VersionTarget, ...]
    yanked: tuple[VersionTarget, ...]
    pruned: tuple[str, ...]
    policy: ModelPolicy
    floor_raised: bool
    signers: tuple[str, ...]
    listed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    reset: ModelReset | None = None


def check_role(
    new: Metadata[Targets],
    *,
    model: str,
    current: Metadata[Targets] | None,
    delegator: Targets,
    known: Sequence[KnownVersion],
    now: datetime,
    reset: ModelReset | None = None,
    resets: bool = False,
) -> RoleChange:
    """Steps 3 to 11 for the next document of a model's role, or the error of the first that fails.

    `delegator` is the top-level targets document under which the role will be valid, `reset` what
    that says in place of a stolen key's word, and `resets` whether it says so from this document
    on.
    """
    role = names.role_for_model(model)
    check_next_version(new, current, role)
    signers = check_signatures(delegator, role, new)
    check_expiry(new, role, now=now)
    if new.signed.delegations is not None:
        raise SubDelegation(f"{role}: expected no delegations; a model's role may not have any")
    for path in new.signed.targets:
        check_path(path, model=model, delegator=delegator)
    after = {path: read_entry(path, t) for path, t in versions_in(new.signed.targets, model)}
    before: dict[str, VersionTarget] = {}
    if current is not None:
        before = {p: read_entry(p, t) for p, t in versions_in(current.signed.targets, model)}
    policy = read_policy(new.signed.targets, model)
    old_policy = read_policy(current.signed.targets, model) if current else ModelPolicy()
    fresh = tuple(after[path] for path in after if path not in before)
    if reset is not None and resets:
        old_policy = ModelPolicy(reset.floor, frozenset())
        pruned = check_reset(
            reset,
            role_version=new.signed.version,
            before=before,
            after=after,
            policy=policy,
            known=known,
        )
        listed, fresh = fresh, ()
    else:
        pruned, listed = check_append_only(before, after, floor=policy.floor), ()
        check_new_versions(fresh, known=known, policy=policy, reset=reset)
    check_policy(old_policy, policy, entries=after.values(), known=known, reset=reset)
    return RoleChange(
        new=tuple(sorted(fresh, key=lambda target: target.counter)),
        yanked=tuple(
            t for p, t in after.items() if t.yanked and p in before and not before[p].yanked
        ),
        pruned=pruned,
        policy=policy,
        floor_raised=policy.floor > old_policy.floor,
        signers=signers,
        listed=tuple(t.version for t in listed),
        allowed=tuple(
            t.version for p, t in after.items() if not t.yanked and p in before and before[p].yanked
        ),
        reset=reset if resets else None,
    )


def check_next_version(new: Metadata[Any], current: Metadata[Any] | None, role: str) -> None:
    """Step 3. This also stops replays and fast-forwards."""
    at = current.signed.version if current else 0
    if new.signed.version != at + 1:
        raise VersionClash(role, current=at, got=new.signed.version)


def check_signatures(delegator: Root | Targets, role: str, new: Metadata[Any]) -> tuple[str, ...]:
    """Step 4: enough of the keys that the delegator names have signed; returns which."""
    try:
        result = delegator.get_verification_result(role, new.signed_bytes, new.signatures)
    except ValueError as error:
        raise Unsigned(f"{role}: nothing delegates to this role") from error
    if not result:
        raise Unsigned(
            f"{role} is signed by {len(result.signed)} of the {result.threshold} keys that it"
            f" needs; not yet by {', '.join(k[:12] + '…' for k in result.unsigned) or 'any other'}",
            signed=sorted(result.signed),
            unsigned=sorted(result.unsigned),
            threshold=result.threshold,
        )
    return tuple(sorted(result.signed))


def check_expiry(new: Metadata[Any], role: str, *, now: datetime) -> None:
    """Step 5: not so near that installs stop soon, not so far that a stolen key lasts for ever."""
    most = MAX_LIFE[new.signed.type]
    left = new.signed.expires - now
    if not MIN_LIFE <= left <= most:
        raise ExpiryOutOfBounds(
            f"{role}: expected to expire in {MIN_LIFE.days} to {most.days} days; "
            f"it does in {left / timedelta(days=1):.1f}"
        )
