"""TUF documents: read from a request, kept in rows, always the newest of a role.

Reading here means the form only. Whether a document may be accepted is decided in `checks.py`,
`publish.py` and `accept_documents.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from securesystemslib.exceptions import Error as SecuresystemslibError
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import SerializationError

from pilotwave_protocol.fields import parse_time
from pilotwave_protocol.signing import to_bytes
from pilotwave_server.errors import Conflict, Invalid, TooLarge
from pilotwave_server.registry.tables import TufMetadataRow

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)

# Clients ignore their own cap where the parent states a length, so the cap must be kept here.
MAX_DOCUMENT_BYTES = {Root: 500_000, Targets: 2_000_000}
_HOW_TO_SHRINK: Mapping[type, str] = {
    Targets: " A model's role gets smaller by `pilotwave versions floor MODEL VERSION --prune`"
}
MAX_SIGNATURES = 32
CLOCK_SKEW_S = 300


class MetadataTooLarge(TooLarge):
    code = "metadata_too_large"


class BadMetadata(Invalid):
    """Not a TUF document, or one with fields that Pilotwave does not use."""

    code = "bad_metadata"


class WrongType(Invalid):
    code = "wrong_metadata_type"


class SignedInFuture(Invalid):
    """Devices raise their clock's floor by `signed_at`: a future one would stop their installs."""

    code = "signed_in_future"


class NotBootstrapped(Conflict):
    code = "not_bootstrapped"

    def __init__(self) -> None:
        super().__init__("this fleet has no root of trust yet: run `pilotwave keys init` first")


def read_document(data: Mapping[str, Any], kind: type[S], *, now: datetime) -> Metadata[S]:
    """Steps 1 and 2 of accepting a document: size, form, type."""
    try:
        document: Metadata[Any] = Metadata.from_dict(copy.deepcopy(dict(data)))
        size = max(len(to_bytes(document)), len(document.signed_bytes))
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
        SecuresystemslibError,
        RepositoryError,
        SerializationError,
    ) as error:
        raise BadMetadata(f"expected TUF {kind.type} metadata: {_why(error)}") from error
    limit = MAX_DOCUMENT_BYTES[kind]
    if size > limit:
        raise MetadataTooLarge(
            f"expected {kind.type} metadata of at most {limit} bytes; got {size}."
            f"{_HOW_TO_SHRINK.get(kind, '')}"
        )
    if not isinstance(document.signed, kind):
        raise WrongType(f"expected {kind.type} metadata; got {document.signed.type}")
    _check_fields(document, now)
    return document


def _why(error: Exception) -> str:
    text = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
    return text.splitlines()[0][:200] if text else type(error).__name__


def _check_fields(document: Metadata[Any], now: datetime) -> None:
    unknown = sorted(document.unrecognized_fields) + sorted(
        set(document.signed.unrecognized_fields) - {"signed_at"}
    )
    if unknown:
        raise BadMetadata(f"expected no further fields; got {ascii(unknown[0])[:60]}")
    if len(document.signatures) > MAX_SIGNATURES:
        raise BadMetadata(f"expected at most {MAX_SIGNATURES} signatures")
    stamp = document.signed.unrecognized_fields.get("signed_at")
    if stamp is None:
        return
    try:
        signed_at = parse_time(stamp)
    except (TypeError, ValueError) as error:
        raise BadMetadata("signed_at: expected a time like 2026-01-31T09:30:00Z") from error
    ahead = (signed_at - now).total_seconds()
    if ahead > CLOCK_SKEW_S:
        raise SignedInFuture(
            f"signed_at is {ahead:.0f} s ahead of this server's clock; set the clocks, sign again"
        )


def find(session: Session, role: str, version: int | None = None) -> TufMetadataRow | None:
    """The row of a role: of one version, or (None) the newest."""
    query = select(TufMetadataRow).where(TufMetadataRow.role == role)
    if version is not None:
        query = query.where(TufMetadataRow.version == version)
    return session.scalars(query.order_by(TufMetadataRow.version.desc()).limit(1)).first()


def load(session: Session, role: str, kind: type[S]) -> Metadata[S] | None:
    """The newest document of a role, or None."""
    row = find(session, role)
    return None if row is None else parse(row, kind)


def parse(row: TufMetadataRow, kind: type[S]) -> Metadata[S]:
    """The document in a row."""
    document: Metadata[S] = Metadata.from_bytes(row.document)
    if not isinstance(document.signed, kind):
        raise TypeError(f"{row.role}: expected {kind.type}; got {document.signed.type}")
    return document


def need(session: Session, role: str, kind: type[S]) -> Metadata[S]:
    """The newest document of a role that a working fleet has, or NotBootstrapped."""
    found = load(session, role, kind)
    if found is None:
        raise NotBootstrapped
    return found


def insert(session: Session, role: str, document: Metadata[S], *, now: datetime) -> None:
    """Add a document. One that is there already is never overwritten (the key refuses it).

    What is stored and served is the compact form, not the bytes that were uploaded.
    """
    session.add(
        TufMetadataRow(
            role=role,
            version=document.signed.version,
            document=to_bytes(document),
            expires_at=document.signed.expires,
            created_at=now,
        )
    )
    session.flush()


def same(row: TufMetadataRow | None, document: Metadata[S]) -> bool:
    """Whether a row holds the same signed content; then handing it in again changes nothing."""
    if row is None:
        return False
    stored: Metadata[S] = Metadata.from_bytes(row.document)
    return stored.signed_bytes == document.signed_bytes


class Newest(NamedTuple):
    """The valid version of a role, and when it expires."""

    version: int
    expires_at: datetime


def newest(session: Session) -> dict[str, Newest]:
    """The valid version of every role, by role name."""
    row = TufMetadataRow
    top = select(row.role, func.max(row.version).label("version")).group_by(row.role).subquery()
    found = session.execute(
        select(row.role, row.version, row.expires_at)
        .join(top, (row.role == top.c.role) & (row.version == top.c.version))
        .order_by(row.role)
    )
    return {role: Newest(version, expires_at) for role, version, expires_at in found}
