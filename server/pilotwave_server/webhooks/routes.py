"""Webhooks over HTTP, for admins: a URL may hold a password, and a call comes from the server."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from pilotwave_server.deps import NO_STORE, Admin, Ctx, Now, ReadSession, WriteSession
from pilotwave_server.events.feed import BadEventType
from pilotwave_server.paging import BadCursor, CountedPage, Page, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router
from pilotwave_server.webhooks import deliveries, service
from pilotwave_server.webhooks.service import (
    DeliveryUnknown,
    DeliveryWaiting,
    TooManyWebhooks,
    WebhookNameTaken,
    WebhookUnknown,
)
from pilotwave_server.webhooks.tables import WebhookRow
from pilotwave_server.webhooks.targets import BadWebhookUrl, TargetForbidden
from pilotwave_server.webhooks.views import (
    DeliveryState,
    DeliveryView,
    NewWebhookView,
    SecretView,
    WebhookChange,
    WebhookName,
    WebhookRequest,
    WebhookView,
)

router = api_router(tag="webhooks", prefix="/webhooks")

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("", summary="List webhooks", responses=responses(BadCursor))
def list_webhooks(admin: Admin, session: ReadSession, page: Paging) -> CountedPage[WebhookView]:
    """By name, without their secrets."""
    rows, cursor = service.list_webhooks(session, page=page)
    return CountedPage(
        items=[WebhookView.of(row) for row in rows],
        next_cursor=cursor,
        total=count_rows(session, WebhookRow),
    )


@router.post(
    "",
    status_code=201,
    summary="Create a webhook",
    responses=responses(
        WebhookNameTaken, TooManyWebhooks, BadWebhookUrl, TargetForbidden, BadEventType
    ),
    dependencies=[NO_STORE],
)
def create_webhook(
    admin: Admin,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: WebhookRequest,
) -> NewWebhookView:
    """It receives events from now on. The response contains the secret, which is shown only
    once."""
    row = service.create(
        session,
        name=body.name,
        url=body.url,
        types=body.types,
        allowed=context.settings.webhook_targets,
        actor=str(admin),
        now=now,
    )
    return NewWebhookView(**WebhookView.of(row).model_dump(), secret=row.secret)


@router.get("/{webhook}", summary="One webhook", responses=responses(WebhookUnknown))
def get_webhook(webhook: WebhookName, admin: Admin, session: ReadSession) -> WebhookView:
    return WebhookView.of(service.get(session, webhook))


@router.patch(
    "/{webhook}",
    summary="Change a webhook, or turn it off or on",
    responses=responses(WebhookUnknown, BadWebhookUrl, TargetForbidden, BadEventType),
)
def change_webhook(
    webhook: WebhookName,
    admin: Admin,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: WebhookChange,
) -> WebhookView:
    """Events that happen while it is off are never sent; waiting deliveries keep waiting."""
    row = service.change(
        session,
        name=webhook,
        url=body.url,
        types=body.types,
        enabled=body.enabled,
        allowed=context.settings.webhook_targets,
        actor=str(admin),
        now=now,
    )
    return WebhookView.of(row)


@router.delete(
    "/{webhook}",
    status_code=204,
    summary="Remove a webhook with its deliveries",
    responses=responses(WebhookUnknown),
)
def delete_webhook(webhook: WebhookName, admin: Admin, session: WriteSession, now: Now) -> None:
    service.delete(session, name=webhook, actor=str(admin), now=now)


@router.post(
    "/{webhook}/secret",
    summary="Change the secret",
    responses=responses(WebhookUnknown),
    dependencies=[NO_STORE],
)
def change_secret(
    webhook: WebhookName, admin: Admin, session: WriteSession, now: Now
) -> SecretView:
    """Calls carry the signatures of the new secret and of the one before, until the next change."""
    return SecretView(
        secret=service.change_secret(session, name=webhook, actor=str(admin), now=now)
    )


@router.post(
    "/{webhook}/test",
    status_code=202,
    summary="Send a `webhook.test`",
    responses=responses(WebhookUnknown),
)
def test_webhook(
    webhook: WebhookName, admin: Admin, session: WriteSession, now: Now
) -> DeliveryView:
    """The result is in its delivery."""
    row = service.get(session, webhook)
    return DeliveryView.of(deliveries.add_test(session, row, actor=str(admin), now=now))


@router.get(
    "/{webhook}/deliveries",
    summary="List a webhook's deliveries",
    responses=responses(WebhookUnknown, BadCursor),
)
def list_deliveries(
    webhook: WebhookName,
    admin: Admin,
    session: ReadSession,
    page: Paging,
    state: Annotated[DeliveryState | None, Query()] = None,
) -> Page[DeliveryView]:
    """The newest first. Those that ended are kept for 30 days."""
    rows, cursor = service.list_deliveries(session, name=webhook, state=state, page=page)
    return Page(items=[DeliveryView.of(row) for row in rows], next_cursor=cursor)


@router.get(
    "/{webhook}/deliveries/{number}",
    summary="One delivery",
    responses=responses(DeliveryUnknown, WebhookUnknown),
)
def get_delivery(
    webhook: WebhookName, number: Number, admin: Admin, session: ReadSession
) -> DeliveryView:
    return DeliveryView.of(service.get_delivery(session, name=webhook, number=number))


@router.post(
    "/{webhook}/deliveries/{number}/again",
    status_code=202,
    summary="Send a delivery again",
    responses=responses(DeliveryUnknown, WebhookUnknown, DeliveryWaiting),
)
def send_again(
    webhook: WebhookName, number: Number, admin: Admin, session: WriteSession, now: Now
) -> DeliveryView:
    """With the same id and all its tries; one that waits is tried at once."""
    return DeliveryView.of(service.send_again(session, name=webhook, number=number, now=now))
