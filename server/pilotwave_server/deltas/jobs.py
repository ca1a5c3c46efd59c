"""The jobs in the database: note what is needed, take one in hand, say what came of it.

Any number of workers, in any number of processes, may share the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import insert_missing
from pilotwave_server.deltas.needs import Pair, Running
from pilotwave_server.deltas.tables import DeltaRow
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.paging import PageRequest, paginate

HOLD = timedelta(minutes=30)
KEEP = timedelta(hours=24)
"""A delta is cleared when the fleet has not needed it for so long."""
_TOUCH = timedelta(hours=1)
MOST_TRIES = 3
_UNSYNCHRONISED = {"synchronize_session": False}


def read_running(session: Session) -> list[Running]:
    """What devices run, by model, version and variant."""
    m = DeviceModelRow
    counts = (
        select(m.model, m.current_version, m.current_variant, func.count())
        .where(m.current_version.is_not(None), m.current_variant.is_not(None))
        .group_by(m.model, m.current_version, m.current_variant)
    )
    return [Running(*row) for row in session.execute(counts).tuples()]  # type: ignore[arg-type]  # not null


def known_pairs(session: Session) -> dict[tuple[str, str], datetime]:
    """The pairs that were noted before, and when each was last needed."""
    d = DeltaRow
    found = session.execute(select(d.from_sha256, d.to_sha256, d.needed_at)).tuples()
    return {(old, new): needed_at for old, new, needed_at in found}


def fading(pairs: Mapping[tuple[str, str], datetime], now: datetime) -> set[tuple[str, str]]:
    """The pairs whose `needed_at` must be written anew if they are needed still."""
    return {pair for pair, needed_at in pairs.items() if needed_at + _TOUCH <= now}


def touch(session: Session, pairs: Iterable[tuple[str, str]], *, now: datetime) -> None:
    """Say that these pairs are needed still."""
    d = DeltaRow
    for old, new in pairs:
        changing = update(d).where(d.from_sha256 == old, d.to_sha256 == new)
        session.execute(changing.values(needed_at=now))


def unneeded(session: Session, *, now: datetime) -> Sequence[DeltaRow]:
    """The pairs that nobody has needed for long and nobody works on."""
    d = DeltaRow
    idle = or_(d.held_until.is_(None), d.held_until < now)
    return session.scalars(select(d).where(d.needed_at < now - KEEP, idle)).all()


def is_named(session: Session, delta_sha256: str) -> bool:
    """Whether some pair's delta has this digest."""
    named = select(DeltaRow.to_sha256).where(DeltaRow.delta_sha256 == delta_sha256).limit(1)
    return session.scalar(named) is not None


def clear(session: Session, row: DeltaRow) -> bool:
    """Forget a pair; False if it came to be needed meanwhile."""
    d = DeltaRow
    same = (
        d.from_sha256 == row.from_sha256,
        d.to_sha256 == row.to_sha256,
        d.needed_at == row.needed_at,
    )
    found = session.execute(delete(d).where(*same), execution_options=_UNSYNCHRONISED)
    return bool(found.rowcount)  # type: ignore[attr-defined]  # a deletion's result has it


def note(session: Session, pairs: Iterable[Pair], *, now: datetime) -> None:
    """Put pairs on the list; those that are there stay as they are."""
    rows = [
        {
            "from_sha256": pair.old,
            "to_sha256": pair.new,
            "model": pair.model,
            "state": "waiting",
            "full_size": pair.size,
            "generation": 0,
            "created_at": now,
            "needed_at": now,
        }
        for pair in pairs
    ]
    insert_missing(session, DeltaRow, rows)


def take(session: Session, *, now: datetime) -> DeltaRow | None:
    """Take the oldest waiting pair in hand that nobody holds; None if there is none."""
    d = DeltaRow
    free = (d.state == "waiting", or_(d.held_until.is_(None), d.held_until < now))
    for row in session.scalars(select(d).where(*free).order_by(d.created_at).limit(20)):
        if row.generation >= MOST_TRIES:
            _finish(session, row, now=now, state="failed", detail="its workers died each time")
            continue
        held = {"generation": row.generation + 1, "held_until": now + HOLD}
        if _changed(session, row, held):
            row.generation += 1
            return row
    return None


def finish(session: Session, row: DeltaRow, *, now: datetime, state: str, **values: object) -> bool:
    """Say what came of a pair; False if somebody else has it by now."""
    return _finish(session, row, now=now, state=state, **values)


def release(session: Session, row: DeltaRow) -> None:
    """Put a pair back that was not finished."""
    _changed(session, row, {"generation": row.generation - 1, "held_until": None})


def _finish(
    session: Session, row: DeltaRow, *, now: datetime, state: str, **values: object
) -> bool:
    done = {"state": state, "held_until": None, "finished_at": now}
    return _changed(session, row, {**done, **values})


def _changed(session: Session, row: DeltaRow, values: dict[str, object]) -> bool:
    d = DeltaRow
    same = (
        d.from_sha256 == row.from_sha256,
        d.to_sha256 == row.to_sha256,
        d.state == "waiting",
        d.generation == row.generation,
    )
    changing = update(d).where(*same).values(**values)
    found = session.execute(changing, execution_options=_UNSYNCHRONISED)
    return bool(found.rowcount)  # type: ignore[attr-defined]  # an update's result has it


def find(session: Session, old: str, new: str) -> DeltaRow | None:
    """The pair's row, if it was ever noted."""
    return session.get(DeltaRow, (old, new))


def again(session: Session, old: str, new: str, *, actor: str, now: datetime) -> DeltaRow | None:
    """Put a pair back on the list, whatever came of it; None if it was never noted."""
    row = find(session, old, new)
    if row is None or row.state == "waiting":
        return row
    record(session, actor=actor, verb="delta.again", object=f"delta/{old}/{new}", now=now)
    row.state, row.generation, row.held_until = "waiting", 0, None
    row.created_at, row.finished_at, row.detail, row.size = now, None, None, None
    row.delta_sha256 = None
    return row


def list_deltas(
    session: Session, *, page: PageRequest, model: str | None, state: str | None
) -> tuple[Sequence[DeltaRow], str | None]:
    """All pairs, or those of a model, in the order of their digests."""
    query = select(DeltaRow)
    if model is not None:
        query = query.where(DeltaRow.model == model)
    if state is not None:
        query = query.where(DeltaRow.state == state)
    return paginate(session, query, keys=[DeltaRow.to_sha256, DeltaRow.from_sha256], page=page)
