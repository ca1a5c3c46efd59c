"""Policies: what there is, what each says, and a text to change it by."""

from __future__ import annotations

from typing import Any

import yaml
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from pilotwave_server.dashboard.forms import read_form
from pilotwave_server.dashboard.pages import ActOperator, Look, PageContext, page_router
from pilotwave_server.deps import Ctx, Now, ReadSession
from pilotwave_server.errors import ServerError
from pilotwave_server.operators.roles import Role
from pilotwave_server.paging import PageRequest, Paging
from pilotwave_server.rollouts.policies import routes as api
from pilotwave_server.rollouts.policies.builtin import TEXTS
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.rollouts.policies.views import PolicyName, PolicyRequest

router = page_router()


@router.get("/policies")
def list_policies(page: Look, session: ReadSession, paging: Paging) -> Response:
    """The newest version of each."""
    found = api.list_policies(page.actor, session, paging)
    return page.render("policies.html", policies=found, api="/api/v1/policies")


@router.get("/policies/new")
def new(page: Look) -> Response:
    """A text to begin with."""
    page.need(Role.OPERATOR)
    text = TEXTS["standard"].replace("name: standard", "name: my-policy")
    return _form(page, name="", text=text)


def _form(
    page: PageContext, *, name: str, text: str, faults: list[Any] | None = None, status: int = 200
) -> Response:
    return page.render("policy_new.html", status=status, name=name, text=text, faults=faults or [])


@router.post("/policies/new")
async def save(page: ActOperator, context: Ctx, now: Now) -> Response:
    """Save it as the next version of its name; faults are told with their lines."""
    form = await read_form(page.request)
    name, text = form.get("name", "").strip(), form.get("text", "")

    def store() -> Response:
        try:
            with context.db.write() as session:
                api.save_policy(name, page.actor, session, now, PolicyRequest(text=text))
        except PolicyInvalid as error:
            faults = [str(fault) for fault in error.faults]
            return _form(page, name=name, text=text, faults=faults, status=422)
        except (ServerError, ValueError) as error:
            return _form(page, name=name, text=text, faults=[str(error)], status=422)
        return page.go(f"/policies/{name}")

    return await run_in_threadpool(store)


@router.get("/policies/{policy}")
def show(policy: PolicyName, page: Look, session: ReadSession) -> Response:
    """What it says, and its versions."""
    found = api.show_policy(policy, page.actor, session)
    text = TEXTS.get(policy) if found.version == 0 else None
    versions = api.list_versions(policy, page.actor, session, PageRequest(20)).items
    return page.render(
        "policy.html",
        policy=found,
        versions=versions,
        text=text or yaml.safe_dump(found.document, sort_keys=False, allow_unicode=True),
        api=f"/api/v1/policies/{policy}",
    )
