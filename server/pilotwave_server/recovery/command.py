"""`pilotwave-server restore`: go on from a restored database above whatever devices have seen."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from pilotwave_server.db import Database
from pilotwave_server.recovery.lift import Lifted, lift_by
from pilotwave_server.registry import service
from pilotwave_server.registry.documents import NotBootstrapped
from pilotwave_server.registry.trust import TrustStore

ONLINE = ("root", "snapshot", "timestamp")


def restore(
    db: Database, data_dir: Path, *, by: int, now: datetime
) -> tuple[list[str], dict[str, Any]]:
    """Lift the numbers and return what to tell a person, as lines and as JSON."""
    trust = TrustStore(db, data_dir)
    trust.start()
    if not trust.bootstrapped:
        raise NotBootstrapped
    done = lift_by(db, trust, by=by, actor="server", now=now)
    with db.read() as session:
        roles = {e.role: e.version for e in service.expiries(session) if e.role not in ONLINE}
    answer = {
        "before": done.before._asdict(),
        "after": done.after._asdict(),
        "devices_ahead": done.ahead.devices,
        "roles": roles,
    }
    return _lines(done, roles), answer


def _lines(done: Lifted, roles: dict[str, int]) -> list[str]:
    before, after = done.before, done.after
    lines = [
        f"revision: {before.seq} became {after.seq}",
        f"timestamp: {before.timestamp} became {after.timestamp}",
        f"snapshot: {before.snapshot} became {after.snapshot}",
    ]
    if done.ahead.devices:
        lines.append(f"{done.ahead.sentence}.")
    lines.append("Documents that offline keys sign are as old as the backup, at these versions:")
    lines += [f"  root: {before.root}", *(f"  {role}: {v}" for role, v in roles.items())]
    lines += [
        "Where one was changed after the backup, devices refuse the older one (metadata_rollback).",
        "Then `pilotwave keys rotate online` helps for all at once; or each role is signed past",
        "what devices know: `pilotwave renew --role ROLE --past VERSION`. A lost root must be",
        "handed in again (`pilotwave keys submit FILE`). `pilotwave status` names those behind.",
        "What the backup does not know: devices enrolled, revoked or deleted since, versions",
        "published since (publish them again), changes of groups and assignments. docs/restore.md",
    ]
    return lines
