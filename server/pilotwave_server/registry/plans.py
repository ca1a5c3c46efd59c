"""Training plans: the documents whose digests a model's policy names, and what they must be.

A plan is uploaded as a blob before the role that names it first, and kept with the fleet's records
from then on. It is never changed: a policy may drop it, and then no device computes anything for
it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.errors import BadMessage, BadPlan
from pilotwave_protocol.learning.device_plan import DevicePlan, parse_any_plan
from pilotwave_protocol.learning.noise import longest_head
from pilotwave_protocol.learning.plan import MAX_PLAN_BYTES, StartHead, TrainingPlan
from pilotwave_protocol.learning.statistics import read_head
from pilotwave_protocol.manifest import TensorSpec, Variant, parse_manifest
from pilotwave_server.blobs import service as blob_records
from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.registry.contents import BlobSizeWrong, BlobsMissing
from pilotwave_server.registry.tables import PlanRow, VersionRow


class PlanMissing(Invalid):
    """The policy names a plan that is not here."""

    code = "plan_missing"


class PlanInvalid(Invalid):
    code = "plan_invalid"


class PlanChanged(Conflict):
    """A plan keeps its name and its content: make another one."""

    code = "plan_changed"


class PlanOfNothing(Invalid):
    """The version, variant or output that a plan is based on is not there."""

    code = "plan_of_nothing"


@dataclass(frozen=True)
class CheckedPlan:
    """A new plan that was found right."""

    plan: TrainingPlan | DevicePlan
    raw: bytes
    sha256: str


def check_plans(
    session: Session, *, model: str, named: Mapping[str, str], blobs: BlobStore
) -> list[CheckedPlan]:
    """Check the plans of a policy, by name and digest, that were not there before."""
    known = _known(session, model)
    checked = []
    for name, sha256 in named.items():
        if known.get(name, sha256) != sha256:
            raise PlanChanged(f"plan {name} of {model} was published with other content")
        if name in known:
            continue
        try:
            raw = blobs.read(sha256, MAX_PLAN_BYTES + 1)
        except BlobMissing:
            raise PlanMissing(f"plan {name} of {model}: upload it as the blob {sha256}") from None
        checked.append(CheckedPlan(_checked(session, model, name, raw, blobs), raw, sha256))
    return checked


def check_all_are_known(session: Session, *, model: str, named: Mapping[str, str]) -> None:
    """Once more, in the transaction: what is named is here, with this content."""
    session.flush()
    known = _known(session, model)
    for name, sha256 in named.items():
        if known.get(name) != sha256:
            raise PlanMissing(f"plan {name} of {model} is named with {sha256}, which is not here")


def _known(session: Session, model: str) -> dict[str, str]:
    p = PlanRow
    return dict(session.execute(select(p.name, p.sha256).where(p.model == model)).tuples().all())


def _checked(
    session: Session, model: str, name: str, raw: bytes, blobs: BlobStore
) -> TrainingPlan | DevicePlan:
    try:
        plan = parse_any_plan(raw)
    except BadPlan as error:
        raise PlanInvalid(f"plan {name} of {model}: {error}") from error
    if (plan.model, plan.plan) != (model, name):
        raise PlanInvalid(f"plan {name} of {model} is plan {plan.plan} of {plan.model}")
    _check_base(session, plan)
    if isinstance(plan, DevicePlan):
        return plan
    for file in files_of(plan):
        _check_file(blobs, f"plan {name} of {model}: its {file.what}", file)
    if plan.head is not None:
        _check_head(plan, plan.head, blobs)
    return plan


@dataclass(frozen=True)
class PlanFile:
    """A file that a plan names."""

    what: str
    sha256: str
    size: int


def files_of(plan: TrainingPlan | DevicePlan) -> list[PlanFile]:
    """The blobs that a plan names."""
    found: list[PlanFile] = []
    if isinstance(plan, DevicePlan):
        return found
    if plan.validation is not None:
        found.append(PlanFile("validation file", plan.validation.sha256, plan.validation.size))
    if plan.head is not None:
        found.append(PlanFile("head", plan.head.sha256, plan.head_bytes))
    return found


def _check_file(blobs: BlobStore, named: str, file: PlanFile) -> None:
    size = blobs.sizes([file.sha256])[file.sha256]
    if size is None:
        raise BlobsMissing(f"{named}: upload it first", missing=[file.sha256])
    if size != file.size:
        raise BlobSizeWrong(f"{named} has {size} bytes; the plan says {file.size}")


def _check_head(plan: TrainingPlan, head: StartHead, blobs: BlobStore) -> None:
    """Devices refuse heads that are further away than the plan's length allows."""
    raw = blobs.read(head.sha256, plan.head_bytes)
    try:
        found = read_head(raw, features=plan.features, classes=plan.classes)
    except BadMessage as error:
        raise PlanInvalid(f"plan {plan.plan} of {plan.model}: its head: {error}") from error
    length = float(np.linalg.norm(found))
    if length > longest_head(plan, 1):
        raise PlanInvalid(
            f"plan {plan.plan} of {plan.model}: its head has a norm of {length:g}; the plan says"
            f" {head.length}"
        )


def _check_base(session: Session, plan: TrainingPlan | DevicePlan) -> None:
    v, base = VersionRow, plan.base
    row = session.scalar(select(v).where(v.model == plan.model, v.version == base.version))
    named = f"plan {plan.plan}: {plan.model} {base.version}"
    if row is None or row.yanked_at is not None:
        raise PlanOfNothing(f"{named} is not published, or was yanked")
    if row.sha256 != base.sha256:
        raise PlanOfNothing(f"{named} has the manifest {row.sha256}; the plan says {base.sha256}")
    variant = parse_manifest(row.manifest).variant(base.variant)
    if variant is None:
        raise PlanOfNothing(f"{named} has no variant {base.variant}")
    _check_output(variant, plan.embedding, plan.features, named)
    if isinstance(plan, DevicePlan):
        _check_output(variant, plan.scores.output, plan.classes, named)


def _check_output(variant: Variant, name: str, width: int, named: str) -> None:
    found = next((t for t in variant.outputs if t.name == name), None)
    if found is None or not _is_row(found, width):
        there = ", ".join(f"{t.name} {list(t.shape)}" for t in variant.outputs) or "none"
        raise PlanOfNothing(
            f"{named}: expected an output {name} of [-1, {width}]; its manifest says {there}"
        )


def _is_row(output: TensorSpec, features: int) -> bool:
    return len(output.shape) == 2 and output.shape[1] == features


def record_plans(
    session: Session, plans: Iterable[CheckedPlan], *, actor: str, now: datetime
) -> None:
    """Write new plans down, and note what they need."""
    for found in plans:
        plan = found.plan
        named = {file.what: file.sha256 for file in files_of(plan)}
        for file in files_of(plan):
            blob_records.record(session, sha256=file.sha256, size=file.size, by=actor, now=now)
        session.add(
            PlanRow(
                model=plan.model,
                name=plan.plan,
                sha256=found.sha256,
                content=found.raw,
                validation_sha256=named.get("validation file"),
                head_sha256=named.get("head"),
                published_at=now,
                published_by=actor,
            )
        )
