"""Turn events into deliveries, hand out those that are due, write down what came of them.

Any number of server processes may do this at once. Each step is one short transaction that compares
before it sets: a place moves on under its webhook's lock, and a delivery is taken by counting its
tries up. A process that dies with one in hand leaves it due again after `TAKEN_S`; it may then
arrive twice, with the same id.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.orm import Session

from pilotwave_server.events.feed import Cursor, Event, Types, read_events
from pilotwave_server.webhooks.sending import CallOutcome
from pilotwave_server.webhooks.tables import DeliveryRow, WebhookRow

PAGE = 500
MAX_WAITING = 10_000
TAKEN_S = 90
KEPT_DAYS = 30
# Ten tries within about 16 hours.
WAITS_S = (5, 30, 120, 600, 1800, 3600, 7200, 4 * 3600, 8 * 3600)
JITTER = 0.2


class Due(NamedTuple):
    """A delivery that this process has taken, with what it needs to send it."""

    id: int
    webhook_id: int
    tries: int
    message_id: str
    url: str
    secret: str
    body: bytes


def count_waiting(session: Session) -> tuple[int, datetime | None]:
    """How many deliveries to enabled webhooks wait, and since when the oldest."""
    d, w = DeliveryRow, WebhookRow
    query = select(func.count(), func.min(d.created_at)).join(w, w.id == d.webhook_id)
    count, oldest = session.execute(query.where(d.state == "waiting", w.enabled)).one()
    return count, oldest


def place_of(row: WebhookRow) -> Cursor:
    return Cursor(row.cursor, row.history_cursor)


def add_deliveries(session: Session, webhook_id: int, *, until: Cursor, now: datetime) -> int:
    """Write a webhook's deliveries up to `until`, or some of them; returns how many.

    Nothing is added while MAX_WAITING wait: the place stays, and nothing is lost.
    """
    row = session.get(WebhookRow, webhook_id, with_for_update=True, populate_existing=True)
    if row is None or not row.enabled or place_of(row).covers(until):
        return 0
    waiting = select(func.count()).where(
        DeliveryRow.webhook_id == row.id, DeliveryRow.state == "waiting"
    )
    if (session.scalar(waiting) or 0) >= MAX_WAITING:
        return 0
    events, place = read_events(
        session, Types(row.verbs), after=place_of(row), until=until, limit=PAGE
    )
    if events:
        session.execute(insert(DeliveryRow), [_delivery(row, event, now) for event in events])
    row.cursor, row.history_cursor = place_of(row).furthest(place)
    return len(events)


def _delivery(row: WebhookRow, event: Event, now: datetime) -> dict[str, object]:
    return {
        "webhook_id": row.id,
        "event_id": event.row,
        "verb": event.type,
        "body": event.document,
        "state": "waiting",
        "tries": 0,
        "due_at": now,
        "created_at": now,
    }


def add_test(session: Session, row: WebhookRow, *, actor: str, now: datetime) -> DeliveryRow:
    """Add a delivery of type `webhook.test`, which stands for no event."""
    data = {"actor": actor, "object": f"webhook/{row.name}", "before": None, "after": None}
    event = Event("t0", 0, "webhook.test", now, **data)  # type: ignore[arg-type]  # all of them fit
    made = DeliveryRow(**_delivery(row, event, now))
    session.add(made)
    session.flush()
    return made


def behind(session: Session, until: Cursor) -> list[int]:
    """The webhooks for which there may be something up to `until`."""
    hooks = session.scalars(select(WebhookRow).where(WebhookRow.enabled).order_by(WebhookRow.id))
    return [hook.id for hook in hooks if _is_behind(hook, until)]


def _is_behind(row: WebhookRow, until: Cursor) -> bool:
    if row.cursor < until.audit:
        return True
    return row.history_cursor < until.history and Types(row.verbs).of_devices


def any_due(session: Session, *, now: datetime, busy: Sequence[int]) -> bool:
    """Say whether a look in a write session is worth it."""
    due = _due_now(now).where(WebhookRow.id.not_in(busy)).limit(1)
    return session.execute(due).first() is not None


def take_due(
    session: Session, *, now: datetime, room: Mapping[int, int], each: int, limit: int
) -> list[Due]:
    """Take deliveries that are due, the oldest first, up to `limit`, of one webhook up to `each`.

    `room` says of some webhooks that there is less left for them.
    """
    taken: list[Due] = []
    due_of = select(WebhookRow.id).where(WebhookRow.enabled).order_by(WebhookRow.id)
    for webhook in session.scalars(due_of).all():
        most = min(room.get(webhook, each), limit - len(taken))
        if most > 0:
            found = _due_now(now).where(WebhookRow.id == webhook).limit(most)
            rows = session.execute(found).all()
            taken += [_due(row, hook) for row, hook in rows if _take(session, row, now)]
    return taken


def _due_now(now: datetime) -> Select[tuple[DeliveryRow, WebhookRow]]:
    d, w = DeliveryRow, WebhookRow
    due = select(d, w).join(w, w.id == d.webhook_id)
    return due.where(d.state == "waiting", d.due_at <= now, w.enabled).order_by(d.due_at, d.id)


def _take(session: Session, row: DeliveryRow, now: datetime) -> bool:
    d = DeliveryRow
    taken = (
        update(d)
        .where(d.id == row.id, d.state == "waiting", d.tries == row.tries, d.due_at == row.due_at)
        .values(tries=row.tries + 1, due_at=now + timedelta(seconds=TAKEN_S))
        .returning(d.id)
    )
    quiet = {"synchronize_session": False}
    return session.execute(taken, execution_options=quiet).one_or_none() is not None


def _due(row: DeliveryRow, hook: WebhookRow) -> Due:
    kind = "t" if row.event_id == 0 else "h" if row.body.startswith('{"id":"h') else "a"
    number = row.id if row.event_id == 0 else row.event_id
    return Due(
        id=row.id,
        webhook_id=hook.id,
        tries=row.tries + 1,
        message_id=f"{kind}{number}",
        url=hook.url,
        secret=hook.secret,
        body=row.body.encode(),
    )


def note_outcome(session: Session, due: Due, outcome: CallOutcome, *, now: datetime) -> None:
    """Write down what came of a try, unless the delivery was taken anew meanwhile."""
    values: dict[str, object] = {
        "last_status": outcome.status,
        "last_error": outcome.error and outcome.error[:512],
    }
    if outcome.ok:
        values.update(state="delivered", ended_at=now)
    elif due.tries > len(WAITS_S):
        values.update(state="given_up", ended_at=now)
    else:
        values.update(due_at=now + timedelta(seconds=wait_s(due.tries)))
    d = DeliveryRow
    mine = update(d).where(d.id == due.id, d.state == "waiting", d.tries == due.tries)
    session.execute(mine.values(**values), execution_options={"synchronize_session": False})


def wait_s(tries: int) -> float:
    """Seconds until the next try after `tries` of them, spread by a fifth either way."""
    return WAITS_S[tries - 1] * random.uniform(1 - JITTER, 1 + JITTER)


def sweep(session: Session, *, now: datetime) -> None:
    """Remove deliveries that ended more than KEPT_DAYS ago."""
    old = DeliveryRow.ended_at < now - timedelta(days=KEPT_DAYS)
    session.execute(
        delete(DeliveryRow).where(old), execution_options={"synchronize_session": False}
    )
