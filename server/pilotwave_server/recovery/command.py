"""`pilotwave-server backup` and `restore`: what they do for a person, and what they say.

`restore` alone goes on from a database that was restored by other means, above whatever devices
have seen; with a backup it puts that back first.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from pilotwave_server.audit.service import record
from pilotwave_server.blobs.choose import open_store
from pilotwave_server.clock import utc_now
from pilotwave_server.db import Database
from pilotwave_server.errors import BadSetting
from pilotwave_server.keystore.choose import open_keys
from pilotwave_server.keystore.port import KeyStore
from pilotwave_server.recovery.archive import open_archive
from pilotwave_server.recovery.back_up import OBJECT, VERB, Contents, back_up, read_contents
from pilotwave_server.recovery.lift import Lifted, lift_by
from pilotwave_server.recovery.lost import Since, done_since, versions_without_bytes
from pilotwave_server.recovery.put_back import Place, PutBack, put_back
from pilotwave_server.registry import service
from pilotwave_server.registry.documents import NotBootstrapped
from pilotwave_server.registry.own_keys import unknown_keys
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.settings import Settings

ONLINE = ("root", "snapshot", "timestamp")


def restore(
    db: Database, data_dir: Path, keys: KeyStore, *, by: int, now: datetime
) -> tuple[list[str], dict[str, Any]]:
    """Lift the numbers and return what to tell a person, as lines and as JSON."""
    trust = TrustStore(db, data_dir, keys)
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


LEAST = 12
KEYS_ARE = {
    "locked": "the server's keys, locked with the passphrase",
    "database": "the server's keys, encrypted by the key-encryption key, which is not in it",
    "none": "no keys",
}


def read_passphrase(file: Path) -> str:
    """The passphrase in a file. Raises BadSetting."""
    try:
        found = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"--passphrase-file {file}: cannot be read: {error}") from error
    if len(found) < LEAST:
        raise BadSetting(
            f"--passphrase-file {file}: expected at least {LEAST} characters; got {len(found)}"
        )
    return found


def make_backup(
    db: Database,
    settings: Settings,
    to: Path,
    *,
    passphrase: str | None,
    with_blobs: bool,
    now: datetime,
) -> tuple[list[str], Contents]:
    """Make a backup, and return what to tell a person."""
    blobs = open_store(settings, db) if with_blobs else None
    keys = open_keys(settings, db)
    found = back_up(db, to, blobs=blobs, keys=keys, passphrase=passphrase, now=now)
    with db.write() as session:
        told = {"build": found.build, "events": found.events, "left_out": len(found.left_out)}
        record(session, actor="server", verb=VERB, object=OBJECT, now=utc_now(), after=told)
    size = f"{found.blob_bytes / 1e6:.1f} MB"
    lines = [
        f"{to} holds the fleet {found.fleet} at revision {found.revision}, {found.events} audit "
        "events",
        f"{found.blobs} files of models, {size}" if with_blobs else "no files of models",
        KEYS_ARE[found.keys],
    ]
    if found.left_out:
        lines += [f"NOT in it, since missing or damaged here ({len(found.left_out)} files):"]
        lines += [f"  {sha256}" for sha256 in found.left_out]
    return lines, found


def restore_backup(
    settings: Settings,
    backup: Path,
    *,
    passphrase: str | None,
    audit: Path | None,
    now: datetime,
) -> tuple[list[str], dict[str, Any]]:
    """Put a backup back where nothing is; return what to tell a person, as lines and as JSON."""
    place = Place(
        settings.data_dir,
        settings.resolved_database_url,
        blobs=lambda db: open_store(settings, db),
        keys=lambda db: open_keys(settings, db),
    )
    with open_archive(backup) as archive:
        since = None if audit is None else done_since(audit, read_contents(archive))
        found = put_back(archive, place, passphrase=passphrase, now=now)
    db = Database(settings.resolved_database_url, **settings.database_options)
    try:
        with db.read() as session:
            versions = versions_without_bytes(session, found.missing)
            unknown = unknown_keys(session, place.keys(db))
    finally:
        db.close()
    answer = {
        "fleet": found.contents.fleet,
        "made_at": found.contents.made_at.isoformat(),
        "versions_without_files": versions,
        "unknown_keys": unknown,
        "since": None if since is None else vars(since),
    }
    return list(_restored(found, versions, unknown, since)), answer


def _restored(
    found: PutBack, versions: list[str], unknown: list[str], since: Since | None
) -> Iterator[str]:
    contents = found.contents
    made = contents.made_at.isoformat(timespec="seconds")
    yield f"the fleet {contents.fleet} is back as of {made}, revision {contents.revision}"
    if contents.blobs is None:
        yield "the backup holds no files of models: put their folder, or bucket, back yourself"
    yield from _listed("versions that lack files; publish them again from the same files", versions)
    yield from _listed("keys here that this database lists nowhere (docs/restore.md)", unknown)
    if since is None:
        yield f"done after {made}, and lost: a later `pilotwave audit export`, given as --audit,"
        yield "would list it. First revoke again what was revoked since: devices, tokens, people"
        return
    yield from _listed("REVOKE OR TAKE AWAY AGAIN, first of all", since.taken_away)
    yield from _listed("devices that enrolled since; enrol them again", since.enrolled)
    yield from _listed("versions published since; publish them again", since.published)


def _listed(what: str, found: list[str]) -> Iterator[str]:
    if found:
        yield f"{what}:"
        yield from (f"  {line}" for line in found)
