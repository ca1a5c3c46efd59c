"""What admins do with webhooks: make, change, remove, try, look at what was sent.

Sending is `sender.py`'s; which events become deliveries, `deliveries.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.events.feed import Cursor, newest
from pilotwave_server.events.types import check_types
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.webhooks.signing import changed_secret, new_secret
from pilotwave_server.webhooks.tables import DeliveryRow, WebhookRow
from pilotwave_server.webhooks.targets import Targets, check_literal, read_url

MAX_WEBHOOKS = 100


class WebhookUnknown(NotFound):
    code: ClassVar[str] = "webhook_unknown"


class WebhookNameTaken(Conflict):
    code: ClassVar[str] = "webhook_name_taken"


class TooManyWebhooks(Conflict):
    code: ClassVar[str] = "too_many_webhooks"


class DeliveryUnknown(NotFound):
    code: ClassVar[str] = "delivery_unknown"


class DeliveryWaiting(Conflict):
    """It will be tried again by itself."""

    code: ClassVar[str] = "delivery_waiting"


def create(
    session: Session,
    *,
    name: str,
    url: str,
    types: Sequence[str],
    allowed: Targets,
    actor: str,
    now: datetime,
) -> WebhookRow:
    """Make a webhook that is told of what happens from now on; the errors above."""
    check_literal(read_url(url), allowed)
    if session.scalar(select(WebhookRow.id).where(WebhookRow.name == name)) is not None:
        raise WebhookNameTaken(f"there is a webhook called {name}; choose another name")
    if (session.scalar(select(func.count()).select_from(WebhookRow)) or 0) >= MAX_WEBHOOKS:
        raise TooManyWebhooks(f"there are {MAX_WEBHOOKS} webhooks, which is the most")
    place = newest(session)
    row = WebhookRow(
        name=name,
        url=url,
        secret=new_secret(),
        verbs=list(check_types(types).patterns),
        cursor=place.audit,
        history_cursor=place.history,
        created_by=actor,
        created_at=now,
    )
    session.add(row)
    session.flush()
    _note(session, row, "webhook.create", actor, now, after=_told(row))
    return row


def change(
    session: Session,
    *,
    name: str,
    url: str | None,
    types: Sequence[str] | None,
    enabled: bool | None,
    allowed: Targets,
    actor: str,
    now: datetime,
) -> WebhookRow:
    """Change what is given. What happened while it was off, or not asked for, is not sent later."""
    row = get(session, name, lock=True)
    before = _told(row)
    if url is not None:
        check_literal(read_url(url), allowed)
        row.url = url
    if types is not None and list(types) != row.verbs:
        row.verbs = list(check_types(types).patterns)
        _move(row, newest(session))
    if enabled is not None and enabled != row.enabled:
        row.enabled = enabled
        _move(row, newest(session))
    if _told(row) != before:
        _note(session, row, "webhook.change", actor, now, before=before, after=_told(row))
    return row


def delete(session: Session, *, name: str, actor: str, now: datetime) -> None:
    """Remove a webhook with its deliveries."""
    row = get(session, name, lock=True)
    session.delete(row)
    _note(session, row, "webhook.delete", actor, now, before=_told(row))


def change_secret(session: Session, *, name: str, actor: str, now: datetime) -> str:
    """Make a new secret and return it. Until the next change, both sign."""
    row = get(session, name, lock=True)
    new, row.secret = changed_secret(row.secret)
    _note(session, row, "webhook.secret", actor, now)
    return new


def get(session: Session, name: str, *, lock: bool = False) -> WebhookRow:
    """The webhook of this name, or WebhookUnknown."""
    found = select(WebhookRow).where(WebhookRow.name == name)
    row = session.scalar(found.with_for_update() if lock else found)
    if row is None:
        raise WebhookUnknown(f"there is no webhook called {name}")
    return row


def list_webhooks(session: Session, *, page: PageRequest) -> tuple[list[WebhookRow], str | None]:
    """By name."""
    return paginate(session, select(WebhookRow), keys=[WebhookRow.name], page=page)


def list_deliveries(
    session: Session, *, name: str, state: str | None, page: PageRequest
) -> tuple[list[DeliveryRow], str | None]:
    """A webhook's deliveries, the newest first."""
    d = DeliveryRow
    query = select(d).where(d.webhook_id == get(session, name).id)
    if state is not None:
        query = query.where(d.state == state)
    return paginate(session, query, keys=[d.id], page=page, descending=True)


def get_delivery(session: Session, *, name: str, number: int, lock: bool = False) -> DeliveryRow:
    """One delivery of a webhook, or DeliveryUnknown."""
    d = DeliveryRow
    found = select(d).where(d.id == number, d.webhook_id == get(session, name).id)
    row = session.scalar(found.with_for_update() if lock else found)
    if row is None:
        raise DeliveryUnknown(f"{name} has no delivery {number}")
    return row


def send_again(session: Session, *, name: str, number: int, now: datetime) -> DeliveryRow:
    """Let a delivery that ended be tried anew, with all its tries. DeliveryWaiting."""
    row = get_delivery(session, name=name, number=number, lock=True)
    if row.state == "waiting" and row.due_at <= now:
        raise DeliveryWaiting("this delivery is under way")
    row.state, row.tries, row.due_at, row.ended_at = "waiting", 0, now, None
    return row


def _move(row: WebhookRow, place: Cursor) -> None:
    row.cursor, row.history_cursor = place


def _told(row: WebhookRow) -> dict[str, object]:
    """The URL up to its path: what follows is often as good as a password, and viewers read on."""
    parts = urlsplit(row.url)
    where = f"{parts.scheme}://{parts.netloc}"
    return {"to": where, "types": row.verbs, "enabled": row.enabled}


def _note(
    session: Session,
    row: WebhookRow,
    verb: str,
    actor: str,
    now: datetime,
    *,
    before: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
) -> None:
    object = f"webhook/{row.name}"
    record(session, actor=actor, verb=verb, object=object, now=now, before=before, after=after)
