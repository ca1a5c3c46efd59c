"""The rules for a model's `_policy`, step 11 of `checks.py`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tuf.api.metadata import TargetFile

from pilotwave_protocol import names
from pilotwave_protocol.digest import EMPTY_SHA256
from pilotwave_protocol.errors import BadName, BadTrustData
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.trust import ModelPolicy, VersionTarget
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.registry.entries import KnownVersion


class BadPolicy(Invalid):
    code = "bad_policy"


class FloorLowered(Conflict):
    code = "floor_lowered"


class FloorTooHigh(Invalid):
    code = "floor_too_high"


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
        f.raw("floor"), f.raw("yanked")
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
) -> None:
    """Step 11, second half. Devices remember both for ever, so a mistake here cannot be undone."""
    entries = list(entries)
    if new.floor < old.floor:
        raise FloorLowered(f"the floor only rises: it is {old.floor}; got {new.floor}")
    highest = max([v.counter for v in known] + [e.counter for e in entries], default=0)
    if new.floor > max(highest + 1, old.floor):
        raise FloorTooHigh(f"expected a floor of at most {highest + 1}; got {new.floor}")
    if not new.yanked >= old.yanked:
        raise YankForgotten("a yanked digest stays in the policy for ever; one is missing")
    for entry in entries:
        if entry.yanked is not None and entry.sha256 not in new.yanked:
            raise YankForgotten(
                f"{entry.model} {entry.version} is yanked: list it in the policy too"
            )
        if entry.yanked is None and entry.sha256 in new.yanked:
            raise YankForgotten(f"{entry.model} {entry.version}: the policy yanks it: mark it too")
