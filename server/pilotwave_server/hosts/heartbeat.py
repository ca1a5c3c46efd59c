"""Let the other server processes know that this one lives, and know of them."""

from __future__ import annotations

import logging
import secrets
import socket
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pilotwave_server.clock import Clock
from pilotwave_server.db import Database, UtcDateTime, upsert
from pilotwave_server.hosts.living import (
    BEAT_S,
    KEPT,
    KNOWS,
    STALE,
    BlobsApart,
    Fleet,
    Process,
    check_all_know,
    find_apart,
    read_fleet,
)
from pilotwave_server.hosts.tables import ServerProcessRow
from pilotwave_server.workers import Periodic

log = logging.getLogger(__name__)
NOW = timedelta()
LAST = "~"
"""Comes after every process."""


class Heartbeat:
    """One process's beat. On SQLite there is one host and none is needed: `workers` is how many
    processes it has. A `workers.Worker`."""

    def __init__(self, db: Database, clock: Clock, *, workers: int = 1) -> None:
        self._db, self._clock = db, clock
        self._heard_at: datetime | None = None
        self._me = Process(
            secrets.token_hex(16), socket.gethostname()[:64], NOW, clock(), None, knows=KNOWS
        )
        self._again = Periodic("heartbeat", self.beat, interval_s=BEAT_S)
        self.fleet = Fleet(workers, 1, self._me.listening_since)
        self.skew_s = 0.0
        """How far this host's clock is ahead of the database's."""
        self.blob_store: str | None = None
        """The identity of this process's blob store, once it is known."""

    def heard(self) -> None:
        """A device was heard here. Has to be quick."""
        self._heard_at = self._clock()

    def listening_since(self, now: datetime) -> datetime:
        """Since when this fleet's devices would have been heard; `now` while they may reach
        nobody."""
        return self.fleet.listening_since or now

    def start(self) -> None:
        if not self._db.is_sqlite:
            self.beat()
            self._again.start()

    def stop(self) -> None:
        if self._db.is_sqlite:
            return
        self._again.stop()
        try:
            self._write(age=2 * STALE)  # the others need not wait to find out
        except Exception as error:
            log.warning("the others are not told of the end: %s", type(error).__name__)

    def beat(self) -> None:
        """Write this process down, and read of all."""
        heard_at = self._heard_at
        if heard_at is not None and self.fleet.listening_since is None:
            before = self._me.heard_at
            if before is None or heard_at > before:
                # devices are back: those that could not be heard get their time from now on
                self._me = replace(self._me, listening_since=heard_at)
        self._me = replace(self._me, heard_at=heard_at, blob_store=self.blob_store)
        rows = self._write(age=NOW)
        fleet = read_fleet(rows, self._me)
        if fleet.listening_since is None and self.fleet.listening_since is not None:
            log.warning("the host that devices reached is gone: silence of devices is not judged")
        self.fleet = fleet

    def _write(self, *, age: timedelta) -> list[Process]:
        p, me = ServerProcessRow, self._me
        with self._db.write() as session:
            at = database_time(session)
            self.skew_s = (datetime.now(at.tzinfo) - at).total_seconds()
            row = {
                "id": me.id,
                "host": me.host,
                "seen_at": at - age,
                "listening_since": me.listening_since,
                "heard_at": me.heard_at,
                "blob_store": me.blob_store,
                "knows": " ".join(sorted(me.knows)),
            }
            upsert(session, p, [row])
            session.execute(delete(p).where(p.seen_at < at - KEPT))
            return read_processes(session, at)


def database_time(session: Session) -> datetime:
    """Now, by PostgreSQL's clock."""
    return session.scalars(select(func.clock_timestamp(type_=UtcDateTime()))).one()


def check_blobs_shared(session: Session, *, store: str, identity: str) -> None:
    """Raise `BlobsApart` where hosts that live have another blob store than one that is to join;
    `store` is its name for people."""
    at = database_time(session)
    joining = Process(LAST, "", NOW, at, None, identity)
    if host := find_apart(read_processes(session, at), joining):
        raise BlobsApart(store, host)


def check_hosts_know(session: Session, word: str) -> None:
    """Raise `OlderHost` where a server process of the fleet lives that does not know of `word`
    (`living.KNOWS`). On SQLite there is none beside this one's."""
    if session.get_bind().dialect.name != "sqlite":
        check_all_know(read_processes(session, database_time(session)), word)


def read_processes(session: Session, at: datetime) -> list[Process]:
    """Every process that is or was lately running; `at` is now, by the database's clock."""
    p = ServerProcessRow
    columns = (p.id, p.host, p.seen_at, p.listening_since, p.heard_at, p.blob_store, p.knows)
    return [
        Process(id, host, at - seen, since, heard, store, frozenset((knows or "").split()))
        for id, host, seen, since, heard, store, knows in session.execute(select(*columns)).tuples()
    ]
