"""Lift the fleet's revision and the online TUF versions, sign anew, and write it down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server import audit
from pilotwave_server.audit.notices import put_notice
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.db import Database, lift_fleet, lock_fleet
from pilotwave_server.errors import Conflict
from pilotwave_server.recovery.ahead import Ahead, Numbers, look, numbers_here
from pilotwave_server.recovery.plan import ROOM, lift_of
from pilotwave_server.registry.sealing import seal
from pilotwave_server.registry.trust import TrustStore

VERB = "fleet.lift"
GAP = timedelta(minutes=10)
"""Between two lifts that no person asked for."""


class NumbersUsedUp(Conflict):
    code = "numbers_used_up"


@dataclass(frozen=True)
class Lifted:
    """The numbers before and after, and who was ahead."""

    before: Numbers
    after: Numbers
    ahead: Ahead


def lift_by_itself(db: Database, trust: TrustStore, *, now: datetime) -> Lifted | None:
    """Lift as far as devices are believed; None where nothing is to be done, or not yet."""
    with db.read() as session:
        ahead = look(session)
        if lift_of(ahead) == ahead.here or _lifted_since(session, now - GAP):
            return None
    return _lift(db, trust, lift_of, actor="server", now=now, gap=GAP)


def lift_by(db: Database, trust: TrustStore, *, by: int, actor: str, now: datetime) -> Lifted:
    """Lift all by `by` above what is here or reported, whichever is higher: a person says that
    this database is a restored one. Reports count up to `by` above what is here, since a device
    may lie. Raises NumbersUsedUp."""

    def above(ahead: Ahead) -> Numbers:
        tops = [
            max(ours, 0, *(theirs for theirs in reported if theirs <= ours + by))
            for ours, *reported in zip(ahead.here, ahead.highest, ahead.second, strict=True)
        ]
        found = Numbers(*(top + by for top in tops))._replace(root=ahead.here.root)
        if max(found) > ROOM:
            raise NumbersUsedUp(f"expected numbers of at most {ROOM}; got {max(found)}")
        return found

    done = _lift(db, trust, above, actor=actor, now=now, gap=timedelta())
    assert done is not None
    return done


def _lift(
    db: Database,
    trust: TrustStore,
    target: Callable[[Ahead], Numbers],
    *,
    actor: str,
    now: datetime,
    gap: timedelta,
) -> Lifted | None:
    with db.write() as session:
        lock_fleet(session)
        ahead = look(session)
        if gap and (target(ahead) == ahead.here or _lifted_since(session, now - gap)):
            return None
        to = target(ahead)
        if (to.timestamp, to.snapshot) != (ahead.here.timestamp, ahead.here.snapshot):
            least = (to.timestamp, to.snapshot)
            keys = trust.keys("online", session)
            seal(session, changed=[], keys=keys, now=now, least=least)
        lift_fleet(session, to.seq)
        after = numbers_here(session)
        _write_down(session, ahead, after, actor=actor, now=now)
    trust.committed()
    return Lifted(ahead.here, after, ahead)


def _lifted_since(session: Session, since: datetime) -> bool:
    e = AuditEventRow
    # newer ones first: there are few after `since`, whatever the log's length
    query = select(e.id).where(e.at > since, e.object == "fleet/numbers", e.verb == VERB)
    return session.scalar(query.limit(1)) is not None


def _write_down(
    session: Session, ahead: Ahead, after: Numbers, *, actor: str, now: datetime
) -> None:
    audit.record(
        session,
        actor=actor,
        verb=VERB,
        object="fleet/numbers",
        now=now,
        before=ahead.here._asdict(),
        after={**after._asdict(), "devices": ahead.devices, "names": list(ahead.names)},
    )
    if ahead.devices:
        sentence = (
            f"was behind its devices: {ahead.sentence}. Its numbers were lifted. If this database "
            "was restored from a backup, see docs/restore.md for what else was lost; if not, these "
            "devices may lie."
        )
        put_notice(session, object="fleet", sentence=sentence, now=now)
