"""Reset a model after its publisher key was stolen: go back to a document that its owner signed.

What the good document says holds again: its versions, floor and yanks. Versions that came after it
stay listed as yanked, so that no device runs them; those whose release counters leave no room are
taken off. The targets keys sign this, for no publisher key may take a yank or a floor back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.confirm import sure
from pilotwave_cli.errors import ApiError, CliError, Failed
from pilotwave_cli.keys import drafts
from pilotwave_cli.keys.drafts import Draft
from pilotwave_protocol import names, signing
from pilotwave_protocol.rolebounds import MAX_COUNTER
from pilotwave_protocol.trust import MAX_REMOVED, ModelPolicy, ModelReset

REASON = "published with a stolen key"


@dataclass(frozen=True)
class Cleared:
    """What a reset changes: versions yanked, taken off and allowed again; the floors; the yanks
    that are forgotten."""

    yanked: tuple[str, ...]
    removed: tuple[str, ...]
    allowed: tuple[str, ...]
    floor_before: int
    floor: int
    forgotten: int

    def lines(self) -> Iterator[str]:
        """Yield a line for each thing that changes."""
        if self.floor != self.floor_before:
            yield f"the floor falls from {self.floor_before} to {self.floor}"
        if self.forgotten:
            yield f"{self.forgotten} {_plural('yank', self.forgotten)} forgotten"
        for words, versions in (
            ("allowed again", self.allowed),
            ("yanked", self.yanked),
            ("taken off the list", self.removed),
        ):
            if versions:
                count = len(versions)
                shown = ", ".join(versions[:10]) + (", …" if count > 10 else "")
                yield f"{count} {'version is' if count == 1 else 'versions are'} {words}: {shown}"


def _plural(word: str, count: int) -> str:
    return f"{word} is" if count == 1 else f"{word}s are"


def good_role(api: Api, model: str, version: int) -> Metadata[Targets]:
    """Return an earlier document of a model's role, the last one that its owner signed."""
    role = names.role_for_model(model)
    try:
        raw = api.send("GET", f"/tuf/metadata/{version}.{role}.json").content
        found: Metadata[Targets] = Metadata.from_bytes(raw)
    except ApiError as e:
        if e.status == 404:
            raise CliError(f"the role of {model} has no document {version}") from e
        raise
    except RepositoryError as e:
        raise Failed(f"document {version} of the role of {model} cannot be read: {e}") from e
    if found.signed.type != Targets.type or found.signed.version != version:
        raise Failed(f"the server gave another document than version {version} of {role}")
    return found


def history(api: Api, model: str, newest: int, most: int = 12) -> Iterator[str]:
    """Yield a line for each of a role's last documents, so that a person can tell the good one."""
    for version in range(newest, max(newest - most, 0), -1):
        role = good_role(api, model, version).signed
        policy = signing.policy_of(role, model)
        listed = sorted(_counters(role, model).items(), key=lambda item: item[1])
        last = names.parse_target_path(listed[-1][0])[1] if listed else "none"
        yield (
            f"  {version}: signed {role.unrecognized_fields.get('signed_at', 'at an unknown time')}"
            f", newest version {last}, floor {policy.floor}, {len(policy.yanked)} yanked"
        )


def reset(draft: Draft, model: str, good: Targets, now: datetime) -> Cleared:
    """Change a draft's targets and role so that they reset the model to what `good` says."""
    role = draft.roles[names.role_for_model(model)].signed
    if draft.targets is None:
        raise CliError("a reset changes the targets and the role together")
    if good.version >= role.version:
        raise CliError(f"name a document of before version {role.version}")
    targets, before = draft.targets.signed, signing.policy_of(role, model)
    old = _versions(role, model)
    late = {path: t for path, t in old.items() if path not in good.targets}
    removed = {p: t for p, t in late.items() if int(t.custom["counter"]) > MAX_COUNTER}
    if len(removed) > MAX_REMOVED:
        raise Failed(f"a reset can take off {MAX_REMOVED} versions; this would be {len(removed)}")
    listed = _versions(good, model)
    policy = signing.policy_of(good, model)
    role.targets = {**listed, **{p: t for p, t in late.items() if p not in removed}}
    signing.set_policy(role, model, policy)
    yanked = [names.parse_target_path(p)[1] for p in late if p not in removed]
    for version in yanked:
        if "yanked" not in role.targets[names.target_path(model, version)].custom:
            signing.yank(role, model, version, reason=REASON, now=now)
    kept = signing.policy_of(role, model).yanked.union(
        late[names.target_path(model, v)].hashes["sha256"] for v in yanked
    )
    signing.set_policy(role, model, ModelPolicy(policy.floor, kept))
    last = signing.reset_of(targets, model)
    known = last.yanked if last else frozenset[str]()
    counters = _counters(role, model).values()
    signing.set_reset(
        targets,
        model,
        ModelReset(
            epoch=last.epoch + 1 if last else 1,
            role_version=role.version,
            counter=max([last.counter if last else 0, policy.floor, *counters]),
            floor=policy.floor,
            yanked=known.union(t.hashes["sha256"] for t in removed.values()),
        ),
    )
    was = {p for p, t in old.items() if "yanked" in t.custom}
    return Cleared(
        yanked=tuple(yanked),
        removed=tuple(names.parse_target_path(p)[1] for p in removed),
        allowed=tuple(
            names.parse_target_path(p)[1]
            for p, t in listed.items()
            if "yanked" not in t.custom and (p in was or p not in old)
        ),
        floor_before=before.floor,
        floor=policy.floor,
        forgotten=len(before.yanked - kept),
    )


def _versions(role: Targets, model: str) -> dict[str, TargetFile]:
    return {p: t for p, t in role.targets.items() if p != names.policy_path(model)}


def _counters(role: Targets, model: str) -> dict[str, int]:
    return {p: int(t.custom["counter"]) for p, t in _versions(role, model).items()}


def chosen(api: Api, model: str, good: int | None) -> Targets:
    """Return the good document's content; without a number, say which there are."""
    newest = drafts.fetch_role(api, names.role_for_model(model)).signed.version
    if good is None:
        found = "\n".join(history(api, model, newest))
        raise CliError(
            f"name with --good the last document of {model} that its owner signed:\n{found}"
        )
    return good_role(api, model, good).signed


def ask(cleared: Cleared, model: str, *, yes: bool) -> None:
    """Show what a reset changes, and go on only with a yes."""
    output.say(f"The reset of {model}:")
    for line in cleared.lines():
        output.say(f"  {line}")
    told = "Every device of the fleet follows."
    sure(told, f"Reset {model} on the server and on every device?", yes=yes)
