"""Settings: people, tokens, enrolment codes. What is secret is shown once, where it was made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from fastapi.responses import Response
from sqlalchemy.orm import Session

from pilotwave_server.dashboard.confirm import sure
from pilotwave_server.dashboard.forms import Refused, answer_form, blank, in_transaction, validated
from pilotwave_server.dashboard.pages import (
    Anybody,
    Look,
    PageContext,
    check_form,
    oidc_name,
    page_router,
)
from pilotwave_server.dashboard.words import N_
from pilotwave_server.deps import Ctx, Now, ReadSession
from pilotwave_server.devices.views import CodesRequest
from pilotwave_server.errors import NotFound
from pilotwave_server.inventory import routes as devices
from pilotwave_server.operator_api import people_routes as people
from pilotwave_server.operator_api import routes as tokens
from pilotwave_server.operator_api.views import TokenRequest
from pilotwave_server.operators.roles import Role
from pilotwave_server.paging import PageRequest, Paging
from pilotwave_server.webhooks import routes as webhooks
from pilotwave_server.webhooks.views import WebhookChange, WebhookRequest

router = page_router()
SECTIONS = {
    "people": Role.ADMIN,
    "tokens": Role.ADMIN,
    "codes": Role.OPERATOR,
    "webhooks": Role.ADMIN,
}
MANY = PageRequest(limit=200)
DAY_S = 86_400


@router.get("/settings")
def settings(page: Look) -> Response:
    """The first section that the one who looks may see."""
    first = next((name for name, role in SECTIONS.items() if page.may(role.value)), None)
    return page.go(f"/settings/{first}" if first else "/account")


@router.get("/settings/{section}")
def show(section: str, page: Look, session: ReadSession) -> Response:
    """One section's list and its form."""
    return _show(page, session, section)


def _show(
    page: PageContext,
    session: Session,
    section: str,
    *,
    refusal: Refused | None = None,
    secret: tuple[str, str] | None = None,
) -> Response:
    if section not in SECTIONS:
        raise NotFound(f"there are no settings called {section}")
    who = page.need(SECTIONS[section])
    lists: dict[str, Callable[[], Any]] = {
        "people": lambda: people.list_people(who, session, MANY),
        "tokens": lambda: tokens.list_tokens(who, session, MANY),
        "codes": lambda: devices.list_codes(who, session, MANY),
        "webhooks": lambda: webhooks.list_webhooks(who, session, MANY),
    }
    path = {"codes": "enrolment-codes"}.get(section, section)
    return page.render(
        "settings.html",
        status=refusal.status if refusal else 200,
        section=section,
        sections=[name for name, role in SECTIONS.items() if page.may(role.value)],
        rows=lists[section](),
        roles=list(Role),
        given=refusal.given if refusal else {},
        wrong=refusal.wrong if refusal else {},
        secret=secret,
        oidc=oidc_name(page.request),
        api=f"/api/v1/{path}",
    )


QUESTIONS = {
    ("tokens", "revoke"): N_("1 token: %(name)s stops working at once and permanently."),
    ("codes", "revoke"): N_("1 code: nobody can enrol with code %(name)s."),
    ("webhooks", "delete"): N_(
        "1 webhook: %(name)s is no longer called, and its deliveries are deleted."
    ),
    ("people", "unbind"): N_(
        "1 person: %(name)s cannot sign in until an admin creates a login link."
    ),
    ("people", "totp-off"): N_(
        "1 person: %(name)s signs in without one-time codes until they are set up again."
    ),
}


FIELD_OF = {
    "person_name_taken": "name",
    "token_name_taken": "name",
    "has_password": "subject",
    "subject_taken": "subject",
    "bad_subject": "subject",
    "scope_too_wide": "models",
    "expiry_passed": "days",
    "webhook_name_taken": "name",
    "bad_webhook_url": "url",
    "target_forbidden": "url",
    "bad_event_type": "types",
}


@router.post("/settings/{section}/{action}")
async def act(section: str, action: str, page: Anybody, context: Ctx, now: Now) -> Response:
    """Add one, or change one; a new secret is shown in the answer and never again."""
    if section not in SECTIONS:
        raise NotFound(f"there are no settings called {section}")
    page.need(SECTIONS[section])
    await check_form(page)

    def change(session: Session, form: dict[str, str]) -> Secret:
        if (section, action) in QUESTIONS:
            named = form.get("name") or form.get("id", "")
            sure(form, page.told(QUESTIONS[section, action], name=named))
        return DOING[section](page, session, context, action, form, now)

    def done(secret: Secret) -> Response:
        if secret is None:
            return page.go(f"/settings/{section}")
        with context.db.read() as session:
            return _show(page, session, section, secret=secret)

    return await answer_form(
        page.request,
        context,
        in_transaction(context, change),
        done=done,
        again=lambda session, refusal: _show(page, session, section, refusal=refusal),
        fields=FIELD_OF,
        gone=NotFound,
    )


Secret = tuple[str, str] | None


def _people(
    page: PageContext, session: Session, context: Ctx, action: str, form: dict[str, str], now: Now
) -> Secret:
    name = form.get("name", "").strip()
    match action:
        case "add":
            body = validated(people.PersonRequest, form, name=name, role=form.get("role", ""))
            made = people.create_person(page.actor, session, now, body)
            return "link", page.origin + made.link.path
        case "link":
            made_link = people.new_link(name, page.actor, session, now)
            return "link", page.origin + made_link.path
        case "bind":
            wish = validated(
                people.BindRequest,
                form,
                subject=form.get("subject", ""),
                remove_password=form.get("remove_password") == "yes",
            )
            people.bind_person(name, page.actor, session, now, context, wish)
            return None
        case "unbind":
            people.unbind_person(name, page.actor, session, now, context)
            return None
        case "role":
            change = validated(people.PersonChange, form, role=form.get("role", ""))
        case "disable" | "enable":
            change = people.PersonChange.model_validate({"disabled": action == "disable"})
        case "totp-off":
            change = people.PersonChange.model_validate({"totp": False})
        case _:
            raise NotFound(f"unknown action {action}")
    people.change_person(name, page.actor, session, now, context, change)
    return None


def _listed(text: str | None) -> list[str] | None:
    names = [part.strip() for part in (text or "").replace(",", " ").split()]
    return names or None


def _tokens(
    page: PageContext, session: Session, context: Ctx, action: str, form: dict[str, str], now: Now
) -> Secret:
    if action == "revoke":
        tokens.revoke_token(form.get("id", ""), page.actor, session, now, context)
        return None
    if action != "add":
        raise NotFound(f"unknown action {action}")
    days = blank(form.get("days"))
    if days is not None and not (days.isdecimal() and 0 < int(days) < 10_000):
        raise Refused(form, {"days": "expected a number of days, or nothing"})
    body = validated(
        TokenRequest,
        form,
        name=form.get("name", "").strip(),
        role=form.get("role", ""),
        expires_at=None if days is None else now + timedelta(days=int(days)),
        models=_listed(form.get("models")),
        groups=_listed(form.get("groups")),
    )
    return "token", tokens.create_token(page.actor, session, now, body).token


def _codes(
    page: PageContext, session: Session, context: Ctx, action: str, form: dict[str, str], now: Now
) -> Secret:
    if action == "revoke":
        number = form.get("id", "")
        devices.revoke_code(int(number) if number.isdecimal() else 0, page.actor, session, now)
        return None
    if action != "add":
        raise NotFound(f"unknown action {action}")
    pairs = [part.partition("=") for part in (_listed(form.get("labels")) or [])]
    body = validated(
        CodesRequest,
        form,
        count=1,
        labels={key: value for key, _, value in pairs},
        device=blank(form.get("device")),
        expires_in_s=DAY_S,
    )
    made = devices.make_codes(page.actor, session, now, body)
    return "code", made.items[0].code


def _webhooks(
    page: PageContext, session: Session, context: Ctx, action: str, form: dict[str, str], now: Now
) -> Secret:
    who, name = page.actor, form.get("name", "").strip()
    match action:
        case "add":
            body = validated(
                WebhookRequest,
                form,
                name=name,
                url=form.get("url", "").strip(),
                types=_listed(form.get("types")) or [],
            )
            made = webhooks.create_webhook(who, session, now, context, body)
            return "secret", made.secret
        case "enable" | "disable":
            change = WebhookChange.model_validate({"enabled": action == "enable"})
            webhooks.change_webhook(name, who, session, now, context, change)
        case "delete":
            webhooks.delete_webhook(name, who, session, now)
        case "test":
            webhooks.test_webhook(name, who, session, now)
        case _:
            raise NotFound(f"unknown action {action}")
    return None


@router.get("/settings/webhooks/{webhook}")
def deliveries(webhook: str, page: Look, session: ReadSession, paging: Paging) -> Response:
    """What was sent to one webhook, and what came of it."""
    found = webhooks.list_deliveries(webhook, page.need(Role.ADMIN), session, paging)
    api = f"/api/v1/webhooks/{webhook}/deliveries"
    return page.render("webhook.html", name=webhook, deliveries=found, api=api)


DOING: dict[str, Callable[..., Secret]] = {
    "people": _people,
    "tokens": _tokens,
    "codes": _codes,
    "webhooks": _webhooks,
}
