"""The rules for a model's `_policy`, step 11 of `checks.py`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tuf.api.metadata import TargetFile

from pilotwave_protocol import names
from pilotwave_protocol.digest import EMPTY_SHA256
from pilotwave_protocol.errors import BadName, BadTrustData
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.trust import ModelPolicy, ModelReset, VersionTarget
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.registry.entries import KnownVersion, highest_counter


class BadPolicy(Invalid):
    code = "bad_policy"


class FloorLowered(Conflict):
    code = "floor_lowered"


class FloorTooHigh(Invalid):
    code = "floor_too_high"


class YankUnknown(Invalid):
    """Devices remember yanks for ever, and a policy has room for so many."""

    code = "yank_unknown"


class YankForgotten(Conflict):
    code = "yank_forgotten"


def read_policy(targets: Mapping[str, TargetFile], model: str) -> ModelPolicy:
    """Step 11, first half: the policy is there, an empty pseudo-target with known fields."""
    path = names.policy_path(model)
    target = targets.get(path)
    if target is None:
        raise BadPolicy(f"{path}: expected the model's policy among the targets")
    if target.length != 0 or target.hashes != {"sha256": EMPTY_SHA256}:
        raise BadPolicy(f"{path}: expected length 0 and the SHA-256 of nothing")
    try:
        f = Fields(target.custom, path, BadTrustData)
        f.raw("floor"), f.raw("yanked"), f.raw("plans", None)
        f.done()
        return ModelPolicy.from_custom(target.custom)
    except (BadName, BadTrustData) as error:
        raise BadPolicy(str(error)) from error


def check_policy(
    old: ModelPolicy,
    new: ModelPolicy,
    *,
    entries: Iterable[VersionTarget],
    known: Sequence[KnownVersion],
    reset: ModelReset | None = None,
) -> None:
    """Step 11, second half. Devices remember both until the targets role resets the model."""
    entries = list(entries)
    if new.floor < old.floor:
        raise FloorLowered(f"the floor only rises: it is {old.floor}; got {new.floor}")
    highest = max([highest_counter(known, reset), *(e.counter for e in entries)])
    if new.floor > max(highest, old.floor):
        raise FloorTooHigh(
            f"expected a floor of at most {highest}, the newest counter; got {new.floor}"
        )
    digests = {v.sha256 for v in known} | {e.sha256 for e in entries}
    if unknown := sorted(new.yanked - old.yanked - digests):
        raise YankUnknown(f"{unknown[0]} is not the digest of a version that was published")
    if not new.yanked >= old.yanked:
        raise YankForgotten("a yanked digest stays in the policy for ever; one is missing")
    for entry in entries:
        if entry.yanked is not None and entry.sha256 not in new.yanked:
            raise YankForgotten(
                f"{entry.model} {entry.version} is yanked: list it in the policy too"
            )
        if entry.yanked is None and entry.sha256 in new.yanked:
            raise YankForgotten(f"{entry.model} {entry.version}: the policy yanks it: mark it too")
