"""Policies over HTTP: save, check, look."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from pilotwave_server.deps import Now, Operator, ReadSession, Viewer, WriteSession
from pilotwave_server.paging import BadCursor, CountedPage, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.rollouts.policies import service, views
from pilotwave_server.rollouts.policies.chosen import OnePolicy, PolicyUnknown, read_policy
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.rollouts.policies.service import Saved
from pilotwave_server.rollouts.policies.views import (
    PolicyDetail,
    PolicyName,
    PolicyRequest,
    PolicySummary,
)
from pilotwave_server.routing import api_router

router = api_router(tag="policies", prefix="/policies")


@router.get("", summary="List policies", responses=responses(BadCursor))
def list_policies(viewer: Viewer, session: ReadSession, page: Paging) -> CountedPage[PolicySummary]:
    """The newest version of each. The built-in ones come first, unless one was saved in place."""
    found, cursor = service.list_policies(session, page=page)
    items = [views.summary(saved) for saved in found]
    return CountedPage(items=items, next_cursor=cursor, total=service.count_policies(session))


@router.post("/check", summary="Check a policy", responses=responses(OnePolicy, PolicyInvalid))
def check_policy(viewer: Viewer, body: PolicyRequest) -> PolicyDetail:
    """The policy as it would be saved, or all its faults, each with its path and line."""
    policy = read_policy(name=None, text=body.text, document=body.document)
    return views.detail(Saved(policy, 0))


@router.get("/{policy}", summary="One policy", responses=responses(PolicyUnknown))
def show_policy(
    policy: PolicyName,
    viewer: Viewer,
    session: ReadSession,
    version: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="An older version; null: the newest.")
    ] = None,
) -> PolicyDetail:
    return views.detail(service.get_policy(session, policy, version))


@router.get(
    "/{policy}/versions",
    operation_id="list_policy_versions",
    summary="All versions of a policy",
    responses=responses(PolicyUnknown, BadCursor),
)
def list_versions(
    policy: PolicyName, viewer: Viewer, session: ReadSession, page: Paging
) -> Page[PolicyDetail]:
    """The newest first."""
    found, cursor = service.list_versions(session, policy, page=page)
    return Page(items=[views.detail(saved) for saved in found], next_cursor=cursor)


@router.put("/{policy}", summary="Save a policy", responses=responses(OnePolicy, PolicyInvalid))
def save_policy(
    policy: PolicyName, operator: Operator, session: WriteSession, now: Now, body: PolicyRequest
) -> PolicyDetail:
    """Adds the next version; the same text again adds none. Rollouts keep the policy that they
    were created with."""
    saved = service.save_policy(
        session,
        name=policy,
        text=body.text,
        document=body.document,
        actor=str(operator),
        now=now,
    )
    return views.detail(saved)
