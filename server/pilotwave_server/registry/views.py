"""Requests and answers about models, versions and trust."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from pilotwave_protocol import names
from pilotwave_protocol.manifest import MAX_MANIFEST_BYTES, parse_manifest
from pilotwave_server.fields import ApiReply, ApiRequest, ReasonText
from pilotwave_server.registry.keys import ServerKey
from pilotwave_server.registry.service import ModelSummary
from pilotwave_server.registry.tables import VersionRow

TufDocument = dict[str, Any]
_MANIFEST_BASE64 = MAX_MANIFEST_BYTES * 4 // 3 + 4


class MetadataRequest(ApiRequest):
    """The next document of a model's role, signed by its publisher."""

    role: TufDocument = Field(description="TUF targets metadata: {signatures, signed}.")
    manifest: str | None = Field(
        None,
        max_length=_MANIFEST_BASE64,
        description="The new version's manifest, base64; left out when it is uploaded as a blob,"
        " or when there is no new version.",
    )


class PublishedView(ApiReply):
    model: str
    role_version: int = Field(description="The valid version of the model's role.")
    snapshot: int
    timestamp: int
    published: list[str] = Field(description="Versions that are new with this document.")
    yanked: list[str] = Field(description="Versions that were yanked with this document.")
    repeated: bool = Field(description="The document was accepted before; nothing changed.")


class BootstrapRequest(ApiRequest):
    root: TufDocument = Field(description="Root version 1.")
    targets: TufDocument = Field(description="Targets version 1.")


class RootRequest(ApiRequest):
    root: TufDocument = Field(description="The next root.")
    targets: TufDocument | None = Field(
        None, description="The next targets, where the new root gives targets to other keys."
    )
    roles: dict[str, TufDocument] = Field(default_factory=dict, max_length=1000)


class TargetsRequest(ApiRequest):
    targets: TufDocument = Field(description="The next targets.")
    roles: dict[str, TufDocument] = Field(
        default_factory=dict,
        max_length=1000,
        description="Documents of models' roles that belong to it, by role: `models-detector`.",
    )


class TrustView(ApiReply):
    """The valid versions after a submission."""

    root: int
    targets: int
    snapshot: int
    timestamp: int
    repeated: bool = Field(description="All of it was accepted before; nothing changed.")


class OnlineKeyView(ApiReply):
    number: int
    keyid: str = Field(description="The key's id in TUF.")
    key: dict[str, Any] = Field(description="The public key as TUF writes it.")
    trusted: bool = Field(description="Whether the valid root lists it.")


class DirectorKeyView(ApiReply):
    number: int
    keyid: str = Field(description="SHA-256 of the raw public key.")
    public: str = Field(description="The 32 raw bytes of the Ed25519 public key, hex.")
    trusted: bool = Field(description="Whether the valid targets list it.")


class ServerKeysView(ApiReply):
    """The public halves of the keys that the server holds, the oldest first."""

    fleet: str
    online: list[OnlineKeyView]
    director: list[DirectorKeyView]


def online_view(key: ServerKey, *, trusted: bool) -> OnlineKeyView:
    return OnlineKeyView(
        number=key.number, keyid=key.keyid, key=key.public.to_dict(), trusted=trusted
    )


def director_view(key: ServerKey, *, trusted: bool) -> DirectorKeyView:
    return DirectorKeyView(
        number=key.number, keyid=key.director_keyid, public=key.raw.hex(), trusted=trusted
    )


class ModelView(ApiReply):
    name: str
    publishers: list[str] = Field(description="Ids of the keys that may publish.")
    threshold: int = Field(description="How many of them must sign.")
    floor: int = Field(description="Below this release counter nothing may be installed.")
    versions: int = Field(description="How many versions were published.")
    latest: str | None = Field(description="The newest version that is not yanked or denied.")
    role_version: int | None
    expires_at: datetime | None = Field(description="When the role's signature expires.")
    created_at: datetime
    created_by: str


def model_view(found: ModelSummary) -> ModelView:
    row = found.row
    return ModelView(
        name=row.name,
        publishers=row.publishers,
        threshold=row.threshold,
        floor=row.floor,
        versions=found.versions,
        latest=found.latest,
        role_version=found.role.version if found.role else None,
        expires_at=found.role.expires_at if found.role else None,
        created_at=row.created_at,
        created_by=row.created_by,
    )


class TakenBack(ApiReply):
    """A yank (the publisher's) or a deny (an operator's)."""

    at: datetime
    reason: str
    by: str | None = None


class VersionFields(ApiReply):
    model: str
    version: str
    counter: int = Field(description="Rises with each release of the model.")
    sha256: str = Field(description="The manifest's digest, which is what was signed.")
    size: int = Field(description="Size of all variants' files in bytes.")
    unsafe_format: bool = Field(description="Whether loading it can run code.")
    signers: list[str] = Field(description="Ids of the keys that signed it.")
    published_at: datetime
    published_by: str
    yanked: TakenBack | None
    denied: TakenBack | None
    purged: TakenBack | None = Field(
        description="Who removed its bytes for good, when and why; null: they are here."
    )
    pruned_at: datetime | None = Field(description="Since when its publisher lists it no more.")


class VersionSummaryView(VersionFields):
    variants: list[str] = Field(description="Names of the variants.")


def _fields(row: VersionRow) -> dict[str, Any]:
    yanked = denied = purged = None
    if row.yanked_at:
        yanked = TakenBack(at=row.yanked_at, reason=row.yanked_reason or "")
    if row.denied_at:
        denied = TakenBack(at=row.denied_at, reason=row.denied_reason or "", by=row.denied_by)
    if row.purged_at:
        purged = TakenBack(at=row.purged_at, reason=row.purged_reason or "", by=row.purged_by)
    return {
        "model": row.model,
        "version": row.version,
        "counter": row.counter,
        "sha256": row.sha256,
        "size": sum(variant.size for variant in row.variants),
        "unsafe_format": row.unsafe_format,
        "signers": row.signers,
        "published_at": row.published_at,
        "published_by": row.published_by,
        "yanked": yanked,
        "denied": denied,
        "purged": purged,
        "pruned_at": row.pruned_at,
    }


def version_summary(row: VersionRow) -> VersionSummaryView:
    return VersionSummaryView(**_fields(row), variants=[v.name for v in row.variants])


class FileView(ApiReply):
    path: str
    size: int
    sha256: str


class TensorView(ApiReply):
    name: str
    dtype: str
    shape: list[int] = Field(description="-1 for a dimension that may vary.")


class RequiresView(ApiReply):
    arch: list[str]
    accelerator: str | None
    memory_mb: int | None
    cpu_any: list[str] = Field(description="Facts of which at least one must be true; [] = any.")
    facts: dict[str, str] = Field(description="By fact: a specifier like >=2.1, or its very text.")


class SelfTestView(ApiReply):
    cases: str
    atol: str
    rtol: str
    max_latency_ms: int | None
    min_agreement: str | None = Field(
        description="The least share of cases whose largest output must be the expected one."
    )


class ComparisonView(ApiReply):
    by: str
    output: str | None
    tolerance: str | None


class VariantView(ApiReply):
    name: str
    runtime: str
    runtime_version: str
    precision: str
    format: str
    entrypoint: str
    requires: RequiresView
    unsafe_format: bool
    size: int
    files: list[FileView]
    inputs: list[TensorView]
    outputs: list[TensorView]
    selftest: SelfTestView | None
    compare: ComparisonView | None = Field(
        description="How its answers are compared with another version's while it is in shadow."
    )


class VersionView(VersionFields):
    variants: list[VariantView]
    description: str
    source: dict[str, str]
    metrics: dict[str, str]
    target: str = Field(description="The manifest's path in TUF.")
    length: int = Field(description="The manifest's size in bytes.")
    schema_number: int = Field(
        description="The schema of its manifest: agents that read an older one are not offered it."
    )
    role_version: int = Field(description="The role document that published it.")


def version_view(row: VersionRow) -> VersionView:
    manifest = parse_manifest(row.manifest)
    return VersionView(
        **_fields(row),
        variants=[VariantView.model_validate(variant) for variant in manifest.variants],
        description=manifest.description,
        source=manifest.source,
        metrics=manifest.metrics,
        target=names.target_path(row.model, row.version),
        length=row.length,
        schema_number=manifest.schema,
        role_version=row.role_version,
    )


class DenyRequest(ApiRequest):
    reason: ReasonText
