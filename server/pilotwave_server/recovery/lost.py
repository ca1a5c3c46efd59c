"""What a restored server lacks, and what was done after its backup, for a person to do again.

What was done is known from an export of the audit log (`pilotwave audit export`) that is newer than
the backup. It is followed along its chain, so that a log that was changed is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.auditchain import check
from pilotwave_server.errors import SetupError
from pilotwave_server.recovery.back_up import Contents
from pilotwave_server.registry.tables import VariantFileRow, VariantRow, VersionRow

FIRST = (
    "device.revoke",
    "device.decommission",
    "token.revoke",
    "enrolment_code.revoke",
    "person.disable",
    "person.unbind",
    "person.role",
    "webhook.delete",
    "version.deny",
    "version.yank",
    "version.purge",
)
"""What took something away: until it is done again, the restored server gives it back."""
NEW = ("device.enrol", "device.accept")
PUBLISHED = ("version.publish",)
_MEMBERS = {"id", "at", "actor", "verb", "object", "before", "after", "sha256"}


class AuditUnusable(SetupError):
    code: ClassVar[str] = "audit_unusable"


def versions_without_bytes(session: Session, missing: Collection[str]) -> list[str]:
    """The versions that list one of these blobs, and how many of their files those are."""
    f, a, v = VariantFileRow, VariantRow, VersionRow
    found: dict[str, int] = {}
    gone = sorted(missing)
    for start in range(0, len(gone), 500):
        listed = select(v.model, v.version).join(a, a.version_id == v.id)
        listed = listed.join(f, f.variant_id == a.id).where(v.purged_at.is_(None))
        for model, version in session.execute(
            listed.where(f.sha256.in_(gone[start : start + 500]))
        ):
            found[f"{model} {version}"] = found.get(f"{model} {version}", 0) + 1
    return [f"{name}: {count} of its files" for name, count in sorted(found.items())]


@dataclass(frozen=True)
class Since:
    """What was done after a backup, a line each: what took something away, devices that are new,
    versions that were published."""

    taken_away: list[str]
    enrolled: list[str]
    published: list[str]


def done_since(file: Path, contents: Contents) -> Since:
    """What an export of the audit log says was done after the backup. Raises AuditUnusable."""
    try:
        with file.open() as lines:
            events = list(_read(lines))
    except OSError as error:
        raise AuditUnusable(f"{file}: cannot be read: {error.strerror}") from error
    found = check(events, expected=contents.head)
    if found.fault is not None:
        raise AuditUnusable(f"{file}: event {found.broken_at} is not to be believed: {found.fault}")
    if not found.seen:
        raise AuditUnusable(
            f"{file}: expected an export that goes on from the backup's {contents.events} events; "
            "this one is older, or of another fleet"
        )
    later = events[contents.events :]
    return Since(_told(later, FIRST), _told(later, NEW), _told(later, PUBLISHED))


def _told(events: Iterable[dict[str, Any]], verbs: Collection[str]) -> list[str]:
    return [
        f"{e['verb']} {e['object']} ({e['at']}, {e['actor']})" for e in events if e["verb"] in verbs
    ]


def _read(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or set(event) != _MEMBERS:
            raise AuditUnusable(
                f"line {number}: expected an event as `pilotwave audit export` writes it"
            )
        yield event
