"""Write what a role says into the tables that list it: versions, variants, files, marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from pilotwave_protocol.trust import VersionTarget
from pilotwave_server import audit
from pilotwave_server.blobs import service as blob_records
from pilotwave_server.registry.checks import RoleChange
from pilotwave_server.registry.contents import CheckedVersion, files_of
from pilotwave_server.registry.tables import VariantFileRow, VariantRow, VersionRow


def mark(session: Session, model: str, versions: Sequence[str], **values: object) -> None:
    """Set columns of some versions of a model."""
    if versions:
        session.execute(
            update(VersionRow)
            .where(VersionRow.model == model, VersionRow.version.in_(versions))
            .values(**values)
        )


def record_reset(
    session: Session, model: str, change: RoleChange, *, actor: str, now: datetime
) -> None:
    """Write down that the targets role replaced the word of a model's publisher key."""
    reset = change.reset
    audit.record(
        session,
        actor=actor,
        verb="model.reset",
        object=f"model/{model}",
        now=now,
        after={
            "epoch": reset.epoch if reset else None,
            "floor": change.policy.floor,
            "removed": list(change.pruned),
            "listed again": list(change.listed),
            "yank taken back": list(change.allowed),
        },
    )


def record_version(
    session: Session,
    version: CheckedVersion,
    *,
    role_version: int,
    signers: Sequence[str],
    actor: str,
    now: datetime,
) -> None:
    """Write down a new version with its variants, files and blobs."""
    target, manifest = version.target, version.manifest
    blob_records.record(session, sha256=target.sha256, size=target.length, by=actor, now=now)
    for file in files_of(manifest).values():
        blob_records.record(session, sha256=file.sha256, size=file.size, by=actor, now=now)
    session.flush()
    session.add(
        VersionRow(
            model=target.model,
            version=target.version,
            counter=target.counter,
            sha256=target.sha256,
            length=target.length,
            manifest=version.raw,
            unsafe_format=target.unsafe_format,
            role_version=role_version,
            signers=list(signers),
            published_at=now,
            published_by=actor,
            variants=variant_rows(version),
        )
    )
    session.flush()
    audit.record(
        session,
        actor=actor,
        verb="version.publish",
        object=f"version/{target.model}/{target.version}",
        now=now,
        after=_in_short(target),
    )


def _in_short(target: VersionTarget) -> dict[str, Any]:
    return {"counter": target.counter, "sha256": target.sha256, "unsafe": target.unsafe_format}


def variant_rows(version: CheckedVersion) -> list[VariantRow]:
    """The rows of a version's variants and their files, in the publisher's order."""
    return [
        VariantRow(
            position=position,
            name=variant.name,
            runtime=variant.runtime,
            runtime_version=variant.runtime_version,
            precision=variant.precision,
            format=variant.format,
            entrypoint=variant.entrypoint,
            requires=asdict(variant.requires),
            unsafe_format=variant.unsafe_format,
            size=variant.size,
            files=[
                VariantFileRow(path=file.path, sha256=file.sha256, size=file.size)
                for file in variant.files
            ],
        )
        for position, variant in enumerate(version.manifest.variants)
    ]
