"""HTTP for the fleet's trust: the server's public keys, TUF documents, changes of keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query, Response
from sqlalchemy.orm import Session
from tuf.api.metadata import Root, Targets

from pilotwave_server.context import Context
from pilotwave_server.db import fleet_row
from pilotwave_server.deps import Admin, Ctx, Now, ReadSession, Viewer
from pilotwave_server.errors import NotFound
from pilotwave_server.problems import responses
from pilotwave_server.registry import (
    accept_documents,
    authority,
    checks,
    documents,
    next_key,
    sealing,
)
from pilotwave_server.registry.canary import CanaryRefused
from pilotwave_server.registry.export import ExportFailed
from pilotwave_server.registry.keys import KINDS
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.registry.views import (
    BootstrapRequest,
    DirectorKeyView,
    OnlineKeyView,
    RootRequest,
    ServerKeysView,
    TargetsRequest,
    TrustView,
    director_view,
    online_view,
)
from pilotwave_server.routing import api_router

router = api_router(tag="trust", prefix="/trust")

RoleName = Annotated[
    str,
    Path(
        pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$",
        max_length=80,
        description="root, targets, snapshot, timestamp or models-<model>",
    ),
]
Fresh = Annotated[
    bool, Query(description="Make another key even if one waits: for a server that was stolen.")
]
REFUSALS = (
    documents.BadMetadata,
    documents.WrongType,
    documents.MetadataTooLarge,
    documents.SignedInFuture,
    checks.VersionClash,
    checks.Unsigned,
    checks.ExpiryOutOfBounds,
    authority.BadRoot,
    authority.BadTargets,
    authority.WrongFleet,
    authority.NoDirectorKey,
    authority.ServerKeyMisused,
    authority.ModelRemoved,
    sealing.OnlineKeyUnknown,
    accept_documents.RoleMissing,
    accept_documents.RoleUnexpected,
    accept_documents.VersionsInBundle,
    CanaryRefused,
    ExportFailed,
)


class RoleUnknown(NotFound):
    code = "role_unknown"


@router.get("/server-keys")
def server_keys(viewer: Viewer, context: Ctx, session: ReadSession) -> ServerKeysView:
    """The public keys that this server holds: what root and targets must list."""
    online, director = _trusted(session)
    trust = context.get(TrustStore)
    held = {kind: trust.keys(kind, session) for kind in KINDS}
    return ServerKeysView(
        fleet=fleet_row(session).fleet,
        online=[online_view(k, trusted=k.keyid in online) for k in held["online"]],
        director=[director_view(k, trusted=k.director_keyid in director) for k in held["director"]],
    )


def _trusted(session: Session) -> tuple[set[str], set[str]]:
    root = documents.load(session, Root.type, Root)
    targets = documents.load(session, Targets.type, Targets)
    if root is None or targets is None:
        return set(), set()
    online = set(root.signed.roles["timestamp"].keyids)
    return online, set(authority.director_keys(targets.signed).keys)


TUF_DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The document as it is stored and served",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.get(
    "/metadata/{role}",
    response_class=Response,
    responses={**TUF_DOCUMENT, **responses(RoleUnknown)},
)
def metadata(
    role: RoleName,
    viewer: Viewer,
    session: ReadSession,
    version: Annotated[
        int | None, Query(ge=1, lt=2**63, description="By default the valid one.")
    ] = None,
) -> Response:
    """A TUF document, byte for byte: what the next one is made from."""
    row = documents.find(session, role, version)
    if row is None:
        raise RoleUnknown(f"there is no such document of the role {role}")
    return Response(row.document, media_type="application/json")


@router.post(
    "/bootstrap",
    status_code=201,
    responses=responses(*REFUSALS, accept_documents.AlreadyBootstrapped),
)
def bootstrap(
    body: BootstrapRequest, admin: Admin, context: Ctx, now: Now, response: Response
) -> TrustView:
    """Give the fleet its root of trust: root 1 and targets 1, once and for all."""
    submission = accept_documents.read_submission(
        root=body.root, targets=body.targets, roles={}, now=now
    )
    done = accept_documents.bootstrap(
        db=context.db,
        trust=context.get(TrustStore),
        submission=submission,
        actor=str(admin),
        now=now,
    )
    return _view(done, response)


@router.post("/root", status_code=201, responses=responses(*REFUSALS, documents.NotBootstrapped))
def next_root(
    body: RootRequest, admin: Admin, context: Ctx, now: Now, response: Response
) -> TrustView:
    """Hand in the next root, signed by enough of the old and of the new root keys.

    Where it gives targets to other keys, the next targets must come along.
    """
    submission = accept_documents.read_submission(
        root=body.root, targets=body.targets, roles=body.roles, now=now
    )
    return _view(_submit(context, submission, str(admin), now), response)


@router.post("/targets", status_code=201, responses=responses(*REFUSALS, documents.NotBootstrapped))
def next_targets(
    body: TargetsRequest, admin: Admin, context: Ctx, now: Now, response: Response
) -> TrustView:
    """Hand in the next targets: a new model, other publisher keys, other director keys.

    A new model's first role document must come along; so must one of a model whose present document
    the new keys have not signed.
    """
    submission = accept_documents.read_submission(
        root=None, targets=body.targets, roles=body.roles, now=now
    )
    return _view(_submit(context, submission, str(admin), now), response)


def _submit(
    context: Context, submission: accept_documents.Submission, actor: str, now: Now
) -> accept_documents.Accepted:
    return accept_documents.submit(
        db=context.db, trust=context.get(TrustStore), submission=submission, actor=actor, now=now
    )


def _view(done: accept_documents.Accepted, response: Response) -> TrustView:
    response.status_code = 200 if done.repeated else 201
    root, timestamp, snapshot = done.versions
    return TrustView(
        root=root,
        targets=done.targets,
        snapshot=snapshot,
        timestamp=timestamp,
        repeated=done.repeated,
    )


@router.post("/online-key", responses=responses(documents.NotBootstrapped, ExportFailed))
def stage_online_key(admin: Admin, context: Ctx, now: Now, fresh: Fresh = False) -> OnlineKeyView:
    """Make the online key that shall follow. It signs beside the old one from now on; a root that
    lists it alone completes the change. Asking again returns the same key."""
    key = next_key.stage_key(
        db=context.db,
        trust=context.get(TrustStore),
        kind="online",
        actor=str(admin),
        now=now,
        fresh=fresh,
    )
    return online_view(key, trusted=False)


@router.post("/director-key", responses=responses(documents.NotBootstrapped, ExportFailed))
def stage_director_key(
    admin: Admin, context: Ctx, now: Now, fresh: Fresh = False
) -> DirectorKeyView:
    """Make the director key that shall follow. Directives are signed with it as soon as targets
    lists it. Asking again returns the same key."""
    key = next_key.stage_key(
        db=context.db,
        trust=context.get(TrustStore),
        kind="director",
        actor=str(admin),
        now=now,
        fresh=fresh,
    )
    return director_view(key, trusted=False)
