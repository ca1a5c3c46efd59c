"""Groups as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from pilotwave_server.fields import ApiReply, ApiRequest, GroupName

SELECTOR = (
    "Who is in it, by label and by fact, like `site=berlin, fact.hw in (orin, nano)`; "
    "null: a static list of devices."
)
EXAMPLE = "site=berlin, fact.battery>20, !quarantined"


class GroupChange(ApiRequest):
    selector: str | None = Field(None, max_length=4096, description=SELECTOR, examples=[EXAMPLE])
    description: str = Field("", max_length=512, description="What it is for.")


class GroupRequest(GroupChange):
    name: GroupName


class GroupView(ApiReply):
    name: str
    kind: Literal["static", "selector"]
    selector: str | None = Field(description=SELECTOR)
    description: str
    created_at: datetime
    updated_at: datetime


class GroupDetail(GroupView):
    devices: int = Field(description="How many enrolled devices are in it now.")
