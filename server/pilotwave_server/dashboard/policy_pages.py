"""Policies: what there is, what each says, and a text to change it by."""

from __future__ import annotations

import yaml
from fastapi.responses import Response
from sqlalchemy.orm import Session

from pilotwave_server.dashboard.forms import Refused, answer_form, in_transaction, validated
from pilotwave_server.dashboard.pages import ActOperator, Look, PageContext, page_router
from pilotwave_server.deps import Ctx, Now, ReadSession
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
    return page.render("policy_new.html", name="", text=text, faults=[])


def _again(page: PageContext, refusal: Refused) -> Response:
    typed = {"name": refusal.given.get("name", "").strip(), "text": refusal.given.get("text", "")}
    faults = list(refusal.wrong.values())
    return page.render("policy_new.html", status=refusal.status, **typed, faults=faults)


@router.post("/policies/new")
async def save(page: ActOperator, context: Ctx, now: Now) -> Response:
    """Save it as the next version of its name; faults are told with their lines."""

    def store(session: Session, form: dict[str, str]) -> str:
        body = validated(PolicyRequest, form, text=form.get("text", ""))
        name = form.get("name", "").strip()
        try:
            return api.save_policy(name, page.actor, session, now, body).name
        except PolicyInvalid as error:
            faults = {str(n): str(fault) for n, fault in enumerate(error.faults)}
            raise Refused(form, faults) from None

    return await answer_form(
        page.request,
        context,
        in_transaction(context, store),
        done=lambda name: page.go(f"/policies/{name}"),
        again=lambda _, refusal: _again(page, refusal),
    )


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
