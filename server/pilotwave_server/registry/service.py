"""Reading the registry, and an operator's deny. What publishers may do is `publish.py`'s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload, undefer

from pilotwave_protocol import names
from pilotwave_protocol.manifest import Variant, parse_manifest
from pilotwave_server import audit
from pilotwave_server.db import touch_fleet
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.registry import documents
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.tables import ModelRow, VariantRow, VersionRow


class VersionUnknown(NotFound):
    code = "version_unknown"

    def __init__(self, model: str, version: str) -> None:
        super().__init__(f"{model} has no version {version}")


@dataclass(frozen=True)
class Contents:
    """What a manifest says that the choice for a device needs. It never changes."""

    variants: tuple[Variant, ...]
    schema: int
    metrics: Mapping[str, str]


@dataclass(frozen=True)
class Released:
    """A version as the choice for a device needs it. `yanked` and `denied` are reasons.

    `target`, `sha256`, `length` and `schema` are those of its manifest; `listed` is False when its
    publisher took it off the list (it is below the floor then), so that no device can verify it any
    more. `metrics` are what he signed of its quality.
    """

    model: str
    version: str
    target: str
    sha256: str
    length: int
    counter: int
    variants: tuple[Variant, ...]
    yanked: str | None
    denied: str | None
    listed: bool
    schema: int = 1
    metrics: Mapping[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> frozenset[str]:
        """The digests of all files of all variants."""
        return frozenset(file.sha256 for variant in self.variants for file in variant.files)


def released(session: Session, *, remembered: MutableMapping[str, Contents]) -> Iterator[Released]:
    """Every version that was ever published, oldest first.

    `remembered` keeps what was parsed, by manifest digest, from one call to the next: manifests
    never change, so only versions that are new since then are read and parsed.
    """
    rows = session.scalars(select(VersionRow).order_by(VersionRow.id)).all()
    fresh = {row.id for row in rows if row.sha256 not in remembered}
    if fresh:
        _remember(session, fresh, remembered)
    for row in rows:
        yield Released(
            model=row.model,
            version=row.version,
            target=names.target_path(row.model, row.version),
            sha256=row.sha256,
            length=row.length,
            counter=row.counter,
            variants=remembered[row.sha256].variants,
            yanked=row.yanked_reason if row.yanked_at else None,
            denied=_denied(row),
            listed=row.pruned_at is None,
            schema=remembered[row.sha256].schema,
            metrics=remembered[row.sha256].metrics,
        )


def _denied(row: VersionRow) -> str | None:
    """Why no operator's choice may name it: its bytes are gone, or it was denied."""
    if row.purged_at is not None:
        return f"its bytes were removed for good ({row.purged_reason})"
    return row.denied_reason if row.denied_at else None


def _remember(session: Session, ids: set[int], remembered: MutableMapping[str, Contents]) -> None:
    query = select(VersionRow.sha256, VersionRow.manifest)
    # Few new ones are asked for by number; at the start it is all of them.
    query = query.where(VersionRow.id.in_(ids)) if len(ids) <= 500 else query
    for sha256, raw in session.execute(query):
        manifest = parse_manifest(raw)
        remembered[sha256] = Contents(manifest.variants, manifest.schema, manifest.metrics)


def counters(session: Session) -> dict[tuple[str, str], int]:
    """By model and version the release counter."""
    v = VersionRow
    rows = session.execute(select(v.model, v.version, v.counter))
    return {(model, version): counter for model, version, counter in rows}


def floors(session: Session) -> dict[str, int]:
    """By model the release counter below which nothing may be installed."""
    return dict(session.execute(select(ModelRow.name, ModelRow.floor)).tuples().all())


@dataclass(frozen=True)
class Expiry:
    """When a role's valid document expires. Expired targets or root stop all installs, a model's
    role those of that model."""

    role: str
    version: int
    expires_at: datetime

    def days_left(self, now: datetime) -> float:
        """Days until then, with one decimal; below zero once it is past."""
        return round((self.expires_at - now).total_seconds() / 86_400, 1)


def expiries(session: Session) -> list[Expiry]:
    """Every role's, in the order of role names."""
    return [Expiry(role, *found) for role, found in documents.newest(session).items()]


@dataclass(frozen=True)
class ModelSummary:
    """A model with the number of its versions, its newest one that may be installed, and the state
    of its role."""

    row: ModelRow
    versions: int
    latest: str | None
    role: documents.Newest | None


def list_models(session: Session, *, page: PageRequest) -> tuple[list[ModelSummary], str | None]:
    """Models by name."""
    rows, cursor = paginate(session, select(ModelRow), keys=[ModelRow.name], page=page)
    return summarise(session, rows), cursor


def check_model_known(session: Session, model: str) -> None:
    """ModelUnknown where there is no such model: a list of what it has would be empty."""
    if session.get(ModelRow, model) is None:
        raise ModelUnknown(model)


def get_model(session: Session, *, model: str) -> ModelSummary:
    """One model, or ModelUnknown."""
    row = session.get(ModelRow, model)
    if row is None:
        raise ModelUnknown(model)
    return summarise(session, [row])[0]


def summarise(session: Session, rows: list[ModelRow]) -> list[ModelSummary]:
    """Add to model rows what is told of them in lists."""
    wanted = VersionRow.model.in_([row.name for row in rows])
    counts = dict(
        session.execute(
            select(VersionRow.model, func.count()).where(wanted).group_by(VersionRow.model)
        )
        .tuples()
        .all()
    )
    usable = [c.is_(None) for c in (VersionRow.yanked_at, VersionRow.denied_at)]
    usable.append(VersionRow.pruned_at.is_(None))
    top = (
        select(VersionRow.model, func.max(VersionRow.counter).label("counter"))
        .where(wanted, *usable)
        .group_by(VersionRow.model)
        .subquery()
    )
    same = (VersionRow.model == top.c.model) & (VersionRow.counter == top.c.counter)
    latest = dict(
        session.execute(select(VersionRow.model, VersionRow.version).join(top, same)).tuples().all()
    )
    roles = documents.newest(session)
    return [
        ModelSummary(
            row,
            counts.get(row.name, 0),
            latest.get(row.name),
            roles.get(names.role_for_model(row.name)),
        )
        for row in rows
    ]


def list_versions(
    session: Session, *, model: str, page: PageRequest
) -> tuple[list[VersionRow], str | None]:
    """A model's versions, newest first, with their variants; ModelUnknown."""
    if session.get(ModelRow, model) is None:
        raise ModelUnknown(model)
    query = (
        select(VersionRow)
        .where(VersionRow.model == model)
        .options(selectinload(VersionRow.variants))
    )
    return paginate(session, query, keys=[VersionRow.counter], page=page, descending=True)


def get_version(session: Session, *, model: str, version: str) -> VersionRow:
    """One version with manifest, variants and files; ModelUnknown, VersionUnknown."""
    files = selectinload(VersionRow.variants).selectinload(VariantRow.files)
    row = session.scalars(
        select(VersionRow)
        .where(VersionRow.model == model, VersionRow.version == version)
        .options(files, undefer(VersionRow.manifest))
    ).one_or_none()
    if row is not None:
        return row
    if session.get(ModelRow, model) is None:
        raise ModelUnknown(model)
    raise VersionUnknown(model, version)


class VersionPurged(Conflict):
    """The version's bytes were removed for good: it can never be offered again."""

    code: ClassVar[str] = "version_purged"


def deny(
    session: Session, *, model: str, version: str, reason: str, actor: str, now: datetime
) -> VersionRow:
    """Offer a version to no device any more, at once. An operator's word; it can be taken back."""
    row = get_version(session, model=model, version=version)
    if row.denied_at is not None and row.denied_reason == reason:
        return row
    before = row.denied_reason
    row.denied_at, row.denied_reason, row.denied_by = now, reason, actor
    _note_deny(session, row, "version.deny", actor, now, before, reason)
    return row


def undeny(session: Session, *, model: str, version: str, actor: str, now: datetime) -> VersionRow:
    """Take a deny back. Taking back what is not there changes nothing."""
    row = get_version(session, model=model, version=version)
    if row.purged_at is not None:
        raise VersionPurged(f"the bytes of {model} {version} are gone for good")
    if row.denied_at is None:
        return row
    before = row.denied_reason
    row.denied_at = row.denied_reason = row.denied_by = None
    _note_deny(session, row, "version.undeny", actor, now, before, None)
    return row


def _note_deny(
    session: Session,
    row: VersionRow,
    verb: str,
    actor: str,
    now: datetime,
    before: str | None,
    after: str | None,
) -> None:
    session.flush()
    touch_fleet(session)
    audit.record(
        session,
        actor=actor,
        verb=verb,
        object=f"version/{row.model}/{row.version}",
        now=now,
        before={"denied": before},
        after={"denied": after},
    )
