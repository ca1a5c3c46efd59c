"""Operator tokens as the API shows and takes them. A secret is shown once, when it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, Strict

from pilotwave_server.fields import ApiReply, ApiRequest, GroupName, LabelValue, ModelName, Moment
from pilotwave_server.operators.roles import Role


class TokenRequest(ApiRequest):
    name: Annotated[LabelValue, Field(max_length=64, description="Whose token, or what for.")]
    role: Annotated[Role, Strict(False)] = Field(description="What it may do.")
    expires_at: Moment | None = Field(None, description="When it ends; null: never.")
    models: list[ModelName] | None = Field(
        None, min_length=1, max_length=100, description="All models it may change; null: any."
    )
    groups: list[GroupName] | None = Field(
        None, min_length=1, max_length=100, description="All groups it may change; null: any."
    )


class TokenView(ApiReply):
    id: str = Field(description="The token's public part.")
    name: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    models: list[str] | None = Field(description="All models it may change; null: any.")
    groups: list[str] | None = Field(description="All groups it may change; null: any.")


class NewTokenView(TokenView):
    token: str = Field(description="The token itself. It is shown this once and kept nowhere.")


class WhoAmI(ApiReply):
    id: str = Field(description="The token's public part.")
    kind: Literal["token", "person"]
    name: str
    role: Role
    models: list[str] | None = Field(description="All models it may change; null: any.")
    groups: list[str] | None = Field(description="All groups it may change; null: any.")
