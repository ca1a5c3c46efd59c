"""Remove a version's bytes for good, or a blob that no version lists."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field

from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.deps import Admin, Ctx, Now, PublisherOfBytes
from pilotwave_server.fields import (
    ApiReply,
    ApiRequest,
    ModelName,
    ReasonText,
    Sha256,
    VersionName,
)
from pilotwave_server.problems import responses
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.service import VersionUnknown
from pilotwave_server.retention import remove
from pilotwave_server.retention.remove import BlobInUse, FileUnknown
from pilotwave_server.routing import api_router

router = api_router(tag="models")


class PurgeRequest(ApiRequest):
    reason: ReasonText


class PurgedView(ApiReply):
    blobs: int = Field(description="Files that were removed, deltas among them.")
    bytes: int = Field(description="Their size.")


@router.post(
    "/models/{model}/versions/{version}/purge",
    operation_id="purge_version",
    summary="Delete a version's files permanently",
    responses=responses(ModelUnknown, VersionUnknown),
)
def purge(
    model: ModelName, version: VersionName, body: PurgeRequest, admin: Admin, context: Ctx, now: Now
) -> PurgedView:
    """For a secret that was published, or a licence that ended. Nobody is offered the version any
    more; devices that run it are given the one before, and keep its bytes until they have left it.
    Files that another version lists stay; the others may not be uploaded or published again, in any
    model, until they are readmitted. It cannot be undone."""
    done = remove.purge(
        context.db,
        context.get(BlobStore),
        model=model,
        version=version,
        reason=body.reason,
        actor=str(admin),
        now=now,
    )
    return PurgedView(blobs=len(done.blobs), bytes=done.bytes)


class ReadmitRequest(ApiRequest):
    reason: ReasonText
    files: Annotated[list[str], Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Paths of files in the version; null: all."
    )


class ReadmittedView(ApiReply):
    blobs: list[str] = Field(description="Digests of what may be published again.")


@router.post(
    "/models/{model}/versions/{version}/readmit",
    operation_id="readmit_files",
    summary="Allow purged files to be published again",
    responses=responses(ModelUnknown, VersionUnknown, FileUnknown),
)
def readmit(
    model: ModelName,
    version: VersionName,
    body: ReadmitRequest,
    admin: Admin,
    context: Ctx,
    now: Now,
) -> ReadmittedView:
    """For example the model of a version that was purged because of another file. The version
    itself stays deleted; upload the files again for another version."""
    freed = remove.readmit(
        context.db,
        model=model,
        version=version,
        files=body.files,
        reason=body.reason,
        actor=str(admin),
        now=now,
    )
    return ReadmittedView(blobs=freed)


@router.delete(
    "/blobs/{sha256}",
    operation_id="remove_blob",
    status_code=204,
    summary="Delete a blob that no version lists",
    responses=responses(BlobMissing, BlobInUse),
)
def remove_blob(
    sha256: Annotated[Sha256, Path(description="The blob's SHA-256.")],
    publisher: PublisherOfBytes,
    context: Ctx,
    now: Now,
) -> None:
    """For a file that was uploaded by mistake and never signed."""
    remove.remove_blob(context.db, context.get(BlobStore), sha256=sha256, actor=publisher, now=now)
