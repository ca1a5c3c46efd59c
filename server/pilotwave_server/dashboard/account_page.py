"""One's own account: password, one-time codes, language."""

from __future__ import annotations

from datetime import datetime

import segno
from fastapi.responses import Response
from sqlalchemy.orm import Session

from pilotwave_server.context import Context
from pilotwave_server.dashboard.forms import Refused, answer_form
from pilotwave_server.dashboard.pages import ActViewer, Look, PageContext, page_router
from pilotwave_server.dashboard.signing_in import with_cookie
from pilotwave_server.dashboard.words import N_
from pilotwave_server.db import after_commit
from pilotwave_server.deps import Ctx, Now, ReadSession
from pilotwave_server.errors import NotFound
from pilotwave_server.operators import people, sessions, throttle, totp
from pilotwave_server.operators.passwords import KNOWN, TooManyLogins, verify_password
from pilotwave_server.operators.sessions import PersonSessions

router = page_router()


@router.get("/account")
def account(page: Look, session: ReadSession) -> Response:
    """What is known of the account, and forms to change it."""
    return _show(page, session)


def _show(page: PageContext, session: Session, refusal: Refused | None = None) -> Response:
    row = people.get_person(session, page.actor.name)
    secret = refusal.given.get("secret", "")[:64] if refusal else ""
    secret = secret or totp.new_secret()
    uri = totp.uri(secret, name=row.name, fleet=page.fleet)
    return page.render(
        "account.html",
        status=refusal.status if refusal else 200,
        person=row,
        wrong=refusal.wrong if refusal else {},
        totp_secret=secret,
        qr=segno.make(uri, error="m").svg_data_uri(scale=5, border=4, light="white"),
        api="/api/v1/whoami",
    )


@router.post("/account/{action}")
async def act(action: str, page: ActViewer, context: Ctx, now: Now) -> Response:
    """Change the password; turn one-time codes on or off. Each asks for the password first."""

    def change(form: dict[str, str]) -> str:
        if not _knows_password(page, context, form.get("current", ""), now):
            raise Refused(form, {f"{action}-current": N_("This is not your password.")})
        with context.db.write() as session:
            cookie = _change(page, session, action, form, now)
            after_commit(session, context.get(PersonSessions).forget)
        return cookie

    def done(cookie: str) -> Response:
        response = page.go("/account", say=page.told(N_("Done.")))
        return with_cookie(response, page.request, cookie) if cookie else response

    return await answer_form(
        page.request,
        context,
        change,
        done=done,
        again=lambda session, refusal: _show(page, session, refusal),
        fields={"wrong_code": "code", "weak_password": "password"},
        gone=(NotFound, throttle.TooManyTries, TooManyLogins),
    )


def _knows_password(page: PageContext, context: Context, known: str, now: datetime) -> bool:
    """Whether the one who looks types their own password; a wrong one counts as a try."""
    keys = throttle.inside(page.actor.name)
    with context.db.read() as session:
        throttle.check(session, keys, now=now)
        row = people.get_person(session, page.actor.name)
    if verify_password(row.password_hash, known, lane=KNOWN):
        return True
    with context.db.write() as session:
        throttle.failed(session, keys, now=now)
    return False


def _change(
    page: PageContext, session: Session, action: str, form: dict[str, str], now: Now
) -> str:
    """Make the change; a new cookie's value where every session ended with it."""
    row = people.get_person(session, page.actor.name, lock=True)
    who = str(page.actor)
    match action:
        case "password":
            people.set_password(session, row, form.get("password", ""), actor=who, now=now)
            return sessions.start(session, row, now=now)
        case "totp-on":
            secret = form.get("secret", "")
            totp.enrol(session, row, secret, form.get("code", ""), now=now)
        case "totp-off":
            totp.remove(session, row, actor=who, now=now)
        case _:
            raise NotFound(f"unknown action {action}")
    return ""
