"""Accept root and targets documents: the first ones, and every change of keys after that.

A submission may hold a root, a targets and roles of models, in any combination that makes sense
together; it is accepted whole, in one transaction, or not at all. What the next documents must be
is decided here and in `authority.py`; the roles of models keep the rules of `checks.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from pilotwave_protocol import names
from pilotwave_server import audit
from pilotwave_server.db import Database, fleet_row, lock_fleet
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.registry import authority, documents
from pilotwave_server.registry.canary import check_with_canary
from pilotwave_server.registry.checks import RoleChange, check_signatures
from pilotwave_server.registry.keys import ServerKey
from pilotwave_server.registry.publish import accept_role, accepted_before, announce
from pilotwave_server.registry.resets import new_resets
from pilotwave_server.registry.sealing import seal
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.registry.trust import TrustStore, TufVersions


class AlreadyBootstrapped(Conflict):
    code = "already_bootstrapped"


class RoleMissing(Invalid):
    """A model's first role document must come together with its delegation."""

    code = "role_missing"


class RoleUnexpected(Invalid):
    code = "role_unexpected"


class VersionsInBundle(Invalid):
    code = "versions_in_bundle"


@dataclass(frozen=True)
class Submission:
    """Documents that belong together; `roles` is by model."""

    root: Metadata[Root] | None
    targets: Metadata[Targets] | None
    roles: Mapping[str, Metadata[Targets]]


@dataclass(frozen=True)
class Accepted:
    """The valid versions after a submission. `repeated`: all of it had been accepted before."""

    versions: TufVersions
    targets: int
    repeated: bool


def read_submission(
    *,
    root: Mapping[str, Any] | None,
    targets: Mapping[str, Any] | None,
    roles: Mapping[str, Mapping[str, Any]],
    now: datetime,
) -> Submission:
    """Size, form and type of each document; `roles` is by TUF role name (`models-detector`)."""
    return Submission(
        root=None if root is None else documents.read_document(root, Root, now=now),
        targets=None if targets is None else documents.read_document(targets, Targets, now=now),
        roles={
            names.model_of_role(role): documents.read_document(document, Targets, now=now)
            for role, document in roles.items()
        },
    )


def submit(
    *, db: Database, trust: TrustStore, submission: Submission, actor: str, now: datetime
) -> Accepted:
    """Accept a submission, or raise the error of the first rule that refuses it."""
    with db.write() as session:
        lock_fleet(session)
        repeated = _accepted_before(session, submission)
        if not repeated:
            _accept(session, trust, submission, actor=actor, now=now)
    trust.committed()
    with db.read() as session:
        version = documents.need(session, Targets.type, Targets).signed.version
    return Accepted(trust.versions, version, repeated)


def bootstrap(
    *, db: Database, trust: TrustStore, submission: Submission, actor: str, now: datetime
) -> Accepted:
    """Accept the fleet's first root and targets, once. Raises AlreadyBootstrapped."""
    with db.read() as session:
        first = documents.find(session, Root.type)
        if first is not None and not _accepted_before(session, submission):
            raise AlreadyBootstrapped(
                "this fleet has a root of trust already; "
                "`pilotwave keys rotate --help` says how its keys are changed"
            )
    return submit(db=db, trust=trust, submission=submission, actor=actor, now=now)


def _accepted_before(session: Session, submission: Submission) -> bool:
    return (
        _is_stored(session, Root.type, submission.root)
        and _is_stored(session, Targets.type, submission.targets)
        and all(accepted_before(session, m, role) for m, role in submission.roles.items())
    )


def _is_stored(session: Session, role: str, document: Metadata[Any] | None) -> bool:
    if document is None:
        return True
    return documents.same(documents.find(session, role, document.signed.version), document)


def _accept(
    session: Session, trust: TrustStore, submission: Submission, *, actor: str, now: datetime
) -> None:
    online, director = trust.keys("online", session), trust.keys("director", session)
    root = _accept_root(session, submission.root, online, now=now)
    current = documents.load(session, Targets.type, Targets)
    targets = submission.targets or current
    if targets is None:
        raise documents.NotBootstrapped
    if submission.targets is not None:
        authority.check_targets(
            targets,
            current=current,
            root=root,
            fleet=fleet_row(session).fleet,
            online=online,
            director=director,
            now=now,
        )
        documents.insert(session, Targets.type, targets, now=now)
        _record_models(session, targets.signed, actor=actor, now=now)
    else:
        check_signatures(root, Targets.type, targets)
    resets = new_resets(
        authority.resets_of(current.signed if current else None),
        authority.resets_of(targets.signed),
        roles=submission.roles,
    )
    changes = _accept_roles(
        session, submission.roles, targets.signed, current, set(resets), actor=actor, now=now
    )
    changed = [Targets.type] if submission.targets else []
    changed += [names.role_for_model(model) for model in submission.roles]
    seal(session, changed=changed, keys=online, now=now)
    check_with_canary(session, expected=_expected(targets, submission.roles), now=now)
    _note(session, submission, actor=actor, now=now)
    announce(session, changes)


def _accept_root(
    session: Session, new: Metadata[Root] | None, online: Sequence[ServerKey], *, now: datetime
) -> Root:
    current = documents.load(session, Root.type, Root)
    if new is None:
        if current is None:
            raise documents.NotBootstrapped
        return current.signed
    authority.check_root(new, current=current, online=online, now=now)
    documents.insert(session, Root.type, new, now=now)
    return new.signed


def _record_models(session: Session, targets: Targets, *, actor: str, now: datetime) -> None:
    for model, role in authority.delegated_models(targets).items():
        row = session.get(ModelRow, model)
        if row is None:
            row = ModelRow(name=model, floor=0, created_at=now, created_by=actor)
            session.add(row)
            audit.record(
                session, actor=actor, verb="model.create", object=f"model/{model}", now=now
            )
        elif row.publishers != sorted(role.keyids):
            audit.record(
                session,
                actor=actor,
                verb="model.publishers",
                object=f"model/{model}",
                now=now,
                before={"keyids": row.publishers},
                after={"keyids": sorted(role.keyids)},
            )
        row.publishers = sorted(role.keyids)
        row.threshold = role.threshold
    session.flush()


def _accept_roles(
    session: Session,
    roles: Mapping[str, Metadata[Targets]],
    targets: Targets,
    before: Metadata[Targets] | None,
    resets: Collection[str],
    *,
    actor: str,
    now: datetime,
) -> list[RoleChange]:
    """Each role that came, and each that stays: all must be valid under `targets`, which resets the
    models of `resets`."""
    delegated = authority.delegated_models(targets)
    held_before = authority.holders(before.signed if before else None)
    held = authority.holders(targets)
    changes = []
    for model in roles:
        if model not in delegated:
            raise RoleUnexpected(f"models-{model}: the targets document does not delegate to it")
    for model in delegated:
        if model in roles:
            change = accept_role(
                session,
                model=model,
                new=roles[model],
                contents=[],
                actor=actor,
                now=now,
                delegator=targets,
                resets=model in resets,
            )
            if change.new:
                raise VersionsInBundle(
                    f"models-{model}: new versions are published with POST /models/{model}/metadata"
                )
            changes.append(change)
        elif held_before.get(model) != held.get(model):
            _check_stays_valid(session, model, targets)
    return changes


def _check_stays_valid(session: Session, model: str, targets: Targets) -> None:
    role = names.role_for_model(model)
    document = documents.load(session, role, Targets)
    if document is None:
        raise RoleMissing(f"{role}: send its first document along with its delegation")
    check_signatures(targets, role, document)


def _expected(
    targets: Metadata[Targets], roles: Mapping[str, Metadata[Targets]]
) -> dict[str, TargetFile]:
    expected = dict(targets.signed.targets)
    for role in roles.values():
        expected.update(role.signed.targets)
    return expected


def _note(session: Session, submission: Submission, *, actor: str, now: datetime) -> None:
    for role, document in ((Root.type, submission.root), (Targets.type, submission.targets)):
        if document is not None:
            audit.record(
                session,
                actor=actor,
                verb=f"trust.{role}",
                object=f"trust/{role}",
                now=now,
                after={"version": document.signed.version},
            )
