"""Policies as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from pilotwave_server.fields import SLUG, ApiReply, ApiRequest
from pilotwave_server.rollouts.policies.service import Saved
from pilotwave_server.rollouts.policies.stored import plain_policy
from pilotwave_server.rollouts.policies.wave_words import rule_of
from pilotwave_server.rollouts.policies.yaml_text import MAX_TEXT

PolicyName = Annotated[str, Field(min_length=1, max_length=64, pattern=SLUG, examples=["careful"])]
PolicyText = Annotated[
    str | None,
    Field(
        max_length=MAX_TEXT,
        description="The policy as YAML or JSON text: faults then name their line.",
        examples=["name: all\nwaves:\n  - percent: 100%\n"],
    ),
]
Document = Annotated[
    dict[str, Any] | None, Field(description="The policy as JSON. Give this or `text`.")
]


class PolicyRequest(ApiRequest):
    text: PolicyText = None
    document: Document = None


class PolicySummary(ApiReply):
    name: str
    version: int = Field(description="0: built in.")
    description: str
    waves: list[str] = Field(description="Whom each wave takes, in words.")
    on_failure: str = Field(description="`rollback` or `pause`.")
    approval: bool = Field(description="Whether a second person has to approve.")
    created_by: str | None
    created_at: datetime | None


class PolicyDetail(PolicySummary):
    document: dict[str, Any] = Field(
        description="The whole policy with its defaults, in seconds and shares."
    )


def summary(saved: Saved) -> PolicySummary:
    policy = saved.policy
    return PolicySummary(
        name=policy.name,
        version=saved.version,
        description=policy.description,
        waves=[rule_of(wave) for wave in policy.waves],
        on_failure=str(policy.on_failure),
        approval=policy.approval,
        created_by=saved.created_by,
        created_at=saved.created_at,
    )


def detail(saved: Saved) -> PolicyDetail:
    document = plain_policy(saved.policy)
    return PolicyDetail(**summary(saved).model_dump(), document=document)
