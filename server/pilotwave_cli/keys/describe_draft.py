"""Say in sentences what a draft would change, for the person who is asked to sign it.

It compares the draft's documents with the ones before them, which the draft brings along and which
the server, not this page, holds true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tuf.api.metadata import Metadata, Root, Targets

from pilotwave_cli.keys.drafts import Draft
from pilotwave_cli.keys.rotation_drafts import director_of
from pilotwave_protocol import names


def describe(draft: Draft) -> list[str]:
    """Return one line per document and per change in it."""
    lines = []
    if draft.root is not None:
        lines.append(_head("root", draft.root))
        lines += _root_changes(draft.judge.signed if draft.judge else None, draft.root.signed)
    if draft.targets is not None:
        lines.append(_head("targets", draft.targets))
        before = draft.owner.signed if draft.owner else None
        lines += _targets_changes(before, draft.targets.signed)
    for name, md in sorted(draft.roles.items()):
        versions = sum(not path.endswith("/_policy") for path in md.signed.targets)
        lines.append(f"{_head(name, md)}, {versions} version(s) listed")
    return lines


def _head(name: str, md: Metadata[Root] | Metadata[Targets]) -> str:
    return f"{name} {md.signed.version}, valid until {md.signed.expires:%Y-%m-%d}"


def _root_changes(before: Root | None, after: Root) -> Iterator[str]:
    for name, role in after.roles.items():
        old = before.roles[name].keyids if before else []
        was = before.roles[name].threshold if before else 0
        yield from _keys_change(name, old, role.keyids, was, role.threshold)


def _targets_changes(before: Targets | None, after: Targets) -> Iterator[str]:
    held, holds = _delegated(before), _delegated(after)
    for name in sorted(held.keys() | holds.keys()):
        old, was = held.get(name, ([], 0))
        new, needed = holds.get(name, ([], 0))
        yield from _keys_change(name, old, new, was, needed)
    if names.DIRECTOR_PATH in after.targets:
        now = director_of(after)
        was_director = director_of(before) if before else None
        old_keys = list(was_director.keys) if was_director else []
        was = was_director.threshold if was_director else 0
        yield from _keys_change("director", old_keys, list(now.keys), was, now.threshold)


def _delegated(targets: Targets | None) -> dict[str, tuple[list[str], int]]:
    roles = targets.delegations.roles if targets and targets.delegations else None
    return {name: (role.keyids, role.threshold) for name, role in (roles or {}).items()}


def _keys_change(
    name: str, old: Iterable[str], new: Iterable[str], was: int, needed: int
) -> Iterator[str]:
    gone = [k[:12] for k in old if k not in set(new)]
    come = [k[:12] for k in new if k not in set(old)]
    count = len(list(new))
    if gone:
        yield f"  {name} loses {', '.join(gone)}"
    if come:
        yield f"  {name} gains {', '.join(come)}"
    if gone or come or was != needed:
        yield f"  {name} needs {needed} of {count} key(s)"
