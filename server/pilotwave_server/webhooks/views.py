"""Webhooks as the API shows and takes them. A secret is shown once, when it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from pilotwave_server.events.feed import MAX_PATTERNS
from pilotwave_server.fields import ApiReply, ApiRequest, GroupName
from pilotwave_server.webhooks.tables import DeliveryRow, WebhookRow
from pilotwave_server.webhooks.targets import MAX_URL

WebhookName = GroupName
Url = Annotated[
    str, Field(min_length=8, max_length=MAX_URL, examples=["https://example.com/pilotwave"])
]
Types = Annotated[
    list[Annotated[str, Field(max_length=80)]],
    Field(
        max_length=MAX_PATTERNS,
        description="What to be told of: `rollout.rolled_back`, `rollout.*`, `*`; none: each.",
    ),
]
DeliveryState = Literal["waiting", "delivered", "given_up"]


class WebhookRequest(ApiRequest):
    name: WebhookName
    url: Url = Field(description="Called by POST. Redirects are not followed.")
    types: Types = Field(default_factory=list)


class WebhookChange(ApiRequest):
    url: Url | None = Field(None, description="Null leaves it.")
    types: Types | None = Field(None, description="Null leaves them.")
    enabled: bool | None = Field(None, description="Null leaves it.")


class WebhookView(ApiReply):
    name: str
    url: str
    types: list[str] = Field(description="What it is told of; empty: each event.")
    enabled: bool
    created_by: str
    created_at: datetime

    @classmethod
    def of(cls, row: WebhookRow) -> WebhookView:
        return cls(
            types=row.verbs, **{k: getattr(row, k) for k in cls.model_fields.keys() - {"types"}}
        )


class NewWebhookView(WebhookView):
    secret: str = Field(description="What calls are signed with. It is shown this once.")


class SecretView(ApiReply):
    secret: str = Field(description="The new secret. It is shown this once.")


class DeliveryView(ApiReply):
    id: int
    type: str = Field(description="The event's type.")
    state: DeliveryState
    tries: int
    due_at: datetime = Field(description="While it waits: when it is tried next.")
    last_status: int | None = Field(description="The last answer's HTTP status.")
    last_error: str | None = Field(description="Why the last try failed.")
    created_at: datetime
    ended_at: datetime | None
    body: str = Field(description="What is sent.")

    @classmethod
    def of(cls, row: DeliveryRow) -> DeliveryView:
        return cls(
            type=row.verb, **{k: getattr(row, k) for k in cls.model_fields.keys() - {"type"}}
        )
