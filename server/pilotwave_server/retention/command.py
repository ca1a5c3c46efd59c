"""`pilotwave-server gc`: remove what nobody needs, or list it."""

from __future__ import annotations

from datetime import datetime

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.db import Database
from pilotwave_server.retention.plan import judge
from pilotwave_server.retention.remove import collect, unsigned


def list_unneeded(db: Database, *, keep_versions: int, now: datetime) -> list[str]:
    """Say of each version whether it would go, or why it stays, and how many uploads would."""
    with db.read() as session:
        verdicts = judge(session, keep_versions=keep_versions)
        uploads = len(list(session.scalars(unsigned(now))))
    lines = []
    for found in verdicts:
        word = f"stays: {found.stays}" if found.stays else f"would go: {found.why}"
        lines.append(f"{found.model} {found.version} ({_mb(found.size)}): {word}")
    word = "1 upload that was" if uploads == 1 else f"{uploads} uploads that were"
    return [*lines, f"{word} never signed would go"]


def remove_unneeded(
    db: Database, blobs: BlobStore, *, keep_versions: int, now: datetime
) -> list[str]:
    """Remove it, and say what went."""
    done = collect(db, blobs, keep_versions=keep_versions, now=now)
    files = "1 file" if len(done.blobs) == 1 else f"{len(done.blobs)} files"
    return [*(f"removed {name}" for name in done.versions), f"removed {files}, {_mb(done.bytes)}"]


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
