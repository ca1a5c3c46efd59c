"""Accept the next document of a model's role: new versions, a yank, a raised floor, a new expiry.

All of it is one transaction. The slow checks (manifests, blobs, formats) come before it, so that
other writers do not wait for a disk; the quick ones are made again inside, on what is valid then.
Steps 1 to 14 are listed in `checks.py` and `contents.py`. The rest:

    15 the document is added, never overwriting one
    16 snapshot+1 and timestamp+1, signed by the online key
    17 a canary device reads the result before the commit
    18 commit, and only then the files: role, snapshot, timestamp
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, TargetFile, Targets

from pilotwave_protocol import names
from pilotwave_server import audit
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.blobs.service import check_not_purged
from pilotwave_server.db import Database, lock_fleet, next_revision, touch_fleet
from pilotwave_server.errors import NotFound
from pilotwave_server.registry import documents
from pilotwave_server.registry.canary import check_with_canary
from pilotwave_server.registry.checks import RoleChange, check_role
from pilotwave_server.registry.contents import CheckedVersion, check_contents, digests_of
from pilotwave_server.registry.entries import KnownVersion
from pilotwave_server.registry.plans import (
    CheckedPlan,
    check_all_are_known,
    check_plans,
    record_plans,
)
from pilotwave_server.registry.recording import mark, record_reset, record_version
from pilotwave_server.registry.resets import read_resets
from pilotwave_server.registry.sealing import seal
from pilotwave_server.registry.tables import ModelRow, VersionRow
from pilotwave_server.registry.trust import TrustStore


class ModelUnknown(NotFound):
    code = "model_unknown"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"there is no model {model}; "
            f"`pilotwave models create {model} --publisher keys/publisher.pem` makes one"
        )


@dataclass(frozen=True)
class Published:
    """What an accepted document did. `repeated`: it was accepted before, and nothing changed."""

    model: str
    role_version: int
    snapshot: int
    timestamp: int
    published: tuple[str, ...] = ()
    yanked: tuple[str, ...] = ()
    repeated: bool = False


def publish(
    *,
    db: Database,
    trust: TrustStore,
    blobs: BlobStore,
    model: str,
    document: Mapping[str, Any],
    manifests: Iterable[bytes] = (),
    actor: str,
    now: datetime,
) -> Published:
    """Accept a role's next document, or raise the error of the first step that refuses it.

    Handing in again what was accepted changes nothing and succeeds.
    """
    new = documents.read_document(document, Targets, now=now)
    contents: list[CheckedVersion] = []
    new_plans: list[CheckedPlan] = []
    with db.read() as session:
        if not accepted_before(session, model, new):
            change = rehearse(session, model=model, new=new, now=now)
            contents = check_contents(change.new, given=list(manifests), blobs=blobs)
            check_not_purged(session, digests_of(contents))
            new_plans = check_plans(session, model=model, named=change.policy.plans, blobs=blobs)
    for version in contents:
        blobs.put(version.raw)
    done = _commit(
        db, trust, model=model, new=new, contents=contents, plans=new_plans, actor=actor, now=now
    )
    trust.committed()
    return Published(
        model=model,
        role_version=new.signed.version,
        snapshot=trust.versions.snapshot,
        timestamp=trust.versions.timestamp,
        published=tuple(t.version for t in done.new) if done else (),
        yanked=tuple(t.version for t in done.yanked) if done else (),
        repeated=done is None,
    )


def note_trace(db: Database, *, model: str, versions: Sequence[str], traceparent: str) -> None:
    """Remember the trace of versions that were just published. It is no part of what is signed."""
    v = VersionRow
    with db.write() as session:
        theirs = update(v).where(v.model == model, v.version.in_(versions))
        session.execute(theirs.values(traceparent=traceparent))


def _commit(
    db: Database,
    trust: TrustStore,
    *,
    model: str,
    new: Metadata[Targets],
    contents: Sequence[CheckedVersion],
    plans: Sequence[CheckedPlan],
    actor: str,
    now: datetime,
) -> RoleChange | None:
    """The transaction; None when the document was accepted before."""
    with db.write() as session:
        lock_fleet(session)
        if accepted_before(session, model, new):
            return None
        change = accept_role(
            session, model=model, new=new, contents=contents, plans=plans, actor=actor, now=now
        )
        role = names.role_for_model(model)
        seal(session, changed=[role], keys=trust.keys("online", session), now=now)
        check_with_canary(session, expected=changed_targets(model, new, change), now=now)
        announce(session, [change])
        return change


def changed_targets(
    model: str, new: Metadata[Targets], change: RoleChange
) -> dict[str, TargetFile]:
    """What a device must find in the new document: all that changed, and the policy."""
    versions = [*change.new, *change.yanked]
    paths = [names.target_path(model, target.version) for target in versions]
    return {path: new.signed.targets[path] for path in [names.policy_path(model), *paths]}


def accepted_before(session: Session, model: str, new: Metadata[Targets]) -> bool:
    """Whether this very document is in the registry already."""
    row = documents.find(session, names.role_for_model(model), new.signed.version)
    return documents.same(row, new)


def rehearse(
    session: Session,
    *,
    model: str,
    new: Metadata[Targets],
    now: datetime,
    delegator: Targets | None = None,
    resets: bool = False,
) -> RoleChange:
    """Steps 3 to 11 on what the session sees. `delegator` is by default the valid targets, `resets`
    says that it resets the model with this very document."""
    targets = delegator or documents.need(session, Targets.type, Targets).signed
    role = names.role_for_model(model)
    delegations = targets.delegations
    if delegations is None or not delegations.roles or role not in delegations.roles:
        raise ModelUnknown(model)
    return check_role(
        new,
        model=model,
        current=documents.load(session, role, Targets),
        delegator=targets,
        known=known_versions(session, model),
        now=now,
        reset=read_resets(targets, [model]).get(model),
        resets=resets,
    )


def known_versions(session: Session, model: str) -> list[KnownVersion]:
    """Every version of a model that was ever published."""
    rows = session.execute(
        select(VersionRow.version, VersionRow.counter, VersionRow.sha256).where(
            VersionRow.model == model
        )
    )
    return [KnownVersion(*row) for row in rows]


def accept_role(
    session: Session,
    *,
    model: str,
    new: Metadata[Targets],
    contents: Sequence[CheckedVersion],
    plans: Sequence[CheckedPlan] = (),
    actor: str,
    now: datetime,
    delegator: Targets | None = None,
    resets: bool = False,
) -> RoleChange:
    """Check the role once more and write it down, in the caller's transaction."""
    change = rehearse(session, model=model, new=new, now=now, delegator=delegator, resets=resets)
    check_not_purged(session, digests_of(contents))
    documents.insert(session, names.role_for_model(model), new, now=now)
    for version in contents:
        record_version(
            session,
            version,
            role_version=new.signed.version,
            signers=change.signers,
            actor=actor,
            now=now,
        )
    record_plans(session, plans, actor=actor, now=now)
    check_all_are_known(session, model=model, named=change.policy.plans)
    for target in change.yanked:
        mark(session, model, [target.version], yanked_at=now, yanked_reason=target.yanked)
        audit.record(
            session,
            actor=actor,
            verb="version.yank",
            object=f"version/{model}/{target.version}",
            now=now,
            after={"reason": target.yanked},
        )
    mark(session, model, change.pruned, pruned_at=now)
    mark(session, model, change.listed, pruned_at=None)
    mark(session, model, change.allowed, yanked_at=None, yanked_reason=None)
    if change.reset is not None:
        record_reset(session, model, change, actor=actor, now=now)
    session.execute(
        update(ModelRow).where(ModelRow.name == model).values(floor=change.policy.floor)
    )
    audit.record(
        session,
        actor=actor,
        verb="model.metadata",
        object=f"model/{model}",
        now=now,
        after={
            "version": new.signed.version,
            "floor": change.policy.floor,
            "pruned": list(change.pruned),
            "plans": sorted(change.policy.plans),
        },
    )
    return change


def announce(session: Session, changes: Iterable[RoleChange]) -> None:
    """Count the fleet's revision up; all devices are concerned when something was taken back."""
    if any(c.yanked or c.pruned or c.floor_raised or c.reset for c in changes):
        touch_fleet(session)
    else:
        next_revision(session)
