"""Operator tokens as the API shows and takes them. A secret is shown once, when it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, Strict

from pilotwave_server.fields import ApiReply, ApiRequest, LabelValue, Moment
from pilotwave_server.operators.roles import Role


class TokenRequest(ApiRequest):
    name: Annotated[LabelValue, Field(max_length=64, description="Whose token, or what for.")]
    role: Annotated[Role, Strict(False)] = Field(description="What it may do.")
    expires_at: Moment | None = Field(None, description="When it ends; null: never.")


class TokenView(ApiReply):
    id: str = Field(description="The token's public part.")
    name: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class NewTokenView(TokenView):
    token: str = Field(description="The token itself. It is shown this once and kept nowhere.")


class WhoAmI(ApiReply):
    id: str = Field(description="The token's public part.")
    name: str
    role: Role
