"""HTTP for models and their versions."""

from __future__ import annotations

import base64
import binascii

from fastapi import Response

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.deps import (
    Ctx,
    Now,
    OperatorOfModel,
    PublisherOfModel,
    ReadSession,
    Viewer,
    WriteSession,
)
from pilotwave_server.errors import Invalid
from pilotwave_server.fields import ModelName, VersionName
from pilotwave_server.paging import BadCursor, CountedPage, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.registry import checks, contents, documents, entries, plans, policy, service
from pilotwave_server.registry.canary import CanaryRefused
from pilotwave_server.registry.export import ExportFailed
from pilotwave_server.registry.publish import ModelUnknown, note_trace, publish
from pilotwave_server.registry.service import VersionUnknown
from pilotwave_server.registry.tables import ModelRow, VersionRow
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.registry.views import (
    DenyRequest,
    MetadataRequest,
    ModelView,
    PublishedView,
    VersionSummaryView,
    VersionView,
    model_view,
    version_summary,
    version_view,
)
from pilotwave_server.routing import api_router
from pilotwave_server.tracing import Traced

router = api_router(tag="models", prefix="/models")


class BadBase64(Invalid):
    code = "bad_base64"


REFUSALS = (
    documents.BadMetadata,
    documents.WrongType,
    documents.MetadataTooLarge,
    documents.SignedInFuture,
    documents.NotBootstrapped,
    ModelUnknown,
    checks.VersionClash,
    checks.Unsigned,
    checks.ExpiryOutOfBounds,
    checks.SubDelegation,
    entries.BadTargetPath,
    entries.OutsideDelegation,
    entries.BadHashes,
    entries.BadCustom,
    entries.VersionExists,
    entries.EntryRemoved,
    entries.EntryChanged,
    entries.Unyanked,
    entries.CounterNotRising,
    entries.BelowFloor,
    entries.YankedDigest,
    policy.BadPolicy,
    policy.FloorLowered,
    policy.FloorTooHigh,
    policy.YankForgotten,
    contents.ManifestMissing,
    contents.ManifestMismatch,
    contents.ManifestInvalid,
    contents.ManifestOfAnother,
    contents.BlobsMissing,
    contents.BlobSizeWrong,
    contents.FormatMismatch,
    contents.UnsafeFormat,
    plans.PlanMissing,
    plans.PlanInvalid,
    plans.PlanChanged,
    plans.PlanOfNothing,
    CanaryRefused,
    ExportFailed,
)
"""Each way in which a role's next document may be refused."""


@router.get("", responses=responses(BadCursor))
def list_models(viewer: Viewer, session: ReadSession, page: Paging) -> CountedPage[ModelView]:
    """The models, by name."""
    found, cursor = service.list_models(session, page=page)
    return CountedPage(
        items=[model_view(model) for model in found],
        next_cursor=cursor,
        total=count_rows(session, ModelRow),
    )


@router.get("/{model}", responses=responses(ModelUnknown))
def get_model(model: ModelName, viewer: Viewer, session: ReadSession) -> ModelView:
    """One model: who may publish it, its floor, its newest version."""
    return model_view(service.get_model(session, model=model))


@router.get("/{model}/versions", responses=responses(ModelUnknown, BadCursor))
def list_versions(
    model: ModelName, viewer: Viewer, session: ReadSession, page: Paging
) -> CountedPage[VersionSummaryView]:
    """A model's versions, the newest first."""
    rows, cursor = service.list_versions(session, model=model, page=page)
    return CountedPage(
        items=[version_summary(row) for row in rows],
        next_cursor=cursor,
        total=count_rows(session, VersionRow, VersionRow.model == model),
    )


@router.get("/{model}/versions/{version}", responses=responses(ModelUnknown, VersionUnknown))
def get_version(
    model: ModelName, version: VersionName, viewer: Viewer, session: ReadSession
) -> VersionView:
    """One version: its variants and their files, its signers, whether it was taken back."""
    return version_view(service.get_version(session, model=model, version=version))


@router.post("/{model}/metadata", status_code=201, responses=responses(*REFUSALS, BadBase64))
def publish_metadata(
    model: ModelName,
    body: MetadataRequest,
    publisher: PublisherOfModel,
    context: Ctx,
    now: Now,
    traced: Traced,
    response: Response,
) -> PublishedView:
    """Hand in the next signed document of a model's role: a new version, a yank, a fresh expiry.

    All blobs must have been uploaded. It is accepted whole or not at all. After `version_clash`
    read the current document, make the next one from it, and try again. Handing in what was
    accepted before answers 200 and changes nothing.
    """
    with traced.span("record version", model=model) as span:
        done = publish(
            db=context.db,
            trust=context.get(TrustStore),
            blobs=context.get(BlobStore),
            model=model,
            document=body.role,
            manifests=[] if body.manifest is None else [_decode(body.manifest)],
            actor=str(publisher),
            now=now,
        )
        if span is not None:
            note_trace(context.db, model=model, versions=done.published, traceparent=str(span))
    response.status_code = 200 if done.repeated else 201
    return PublishedView.model_validate(done)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadBase64("manifest: expected base64") from None


DENY = responses(ModelUnknown, VersionUnknown)
UNDENY = responses(ModelUnknown, VersionUnknown, service.VersionPurged)


@router.post("/{model}/versions/{version}/deny", operation_id="deny_version", responses=DENY)
def deny(
    model: ModelName,
    version: VersionName,
    body: DenyRequest,
    operator: OperatorOfModel,
    session: WriteSession,
    now: Now,
) -> VersionView:
    """Stop offering a version to any device, at once. Devices that run it return to the previous
    one.

    Unlike the publisher's yank this can be taken back.
    """
    row = service.deny(
        session, model=model, version=version, reason=body.reason, actor=str(operator), now=now
    )
    return version_view(row)


@router.delete("/{model}/versions/{version}/deny", operation_id="undeny_version", responses=UNDENY)
def undeny(
    model: ModelName,
    version: VersionName,
    operator: OperatorOfModel,
    session: WriteSession,
    now: Now,
) -> VersionView:
    """Withdraw a deny."""
    row = service.undeny(session, model=model, version=version, actor=str(operator), now=now)
    return version_view(row)
