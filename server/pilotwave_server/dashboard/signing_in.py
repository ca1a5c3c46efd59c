"""Signing in and out: password, one-time code, login link. OpenID Connect is `oidc.py`.

A form of a stranger has no session whose token it could carry, so these ask the browser itself
whether another site sent it (Sec-Fetch-Site, else Origin).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Form, Path, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import Context
from pilotwave_server.dashboard.i18n import LANGUAGES
from pilotwave_server.dashboard.pages import Anybody, PageContext, oidc_name, page_router, safe_next
from pilotwave_server.dashboard.words import N_
from pilotwave_server.db import after_commit
from pilotwave_server.deps import (
    Ctx,
    ForgedRequest,
    Now,
    ReadSession,
    WriteSession,
    check_csrf,
)
from pilotwave_server.errors import ServerError
from pilotwave_server.operators import known, people, sessions, throttle, totp
from pilotwave_server.operators.passwords import (
    KNOWN,
    STRANGERS,
    TooManyLogins,
    verify_password,
)
from pilotwave_server.operators.sessions import COOKIE, LIFE, PersonSessions, SignedIn
from pilotwave_server.operators.tables import PersonRow

router = page_router()
Text = Annotated[str, Form(max_length=300)]
Next = Annotated[str, Form(alias="next", max_length=600)]
Secret = Annotated[str, Path(min_length=20, max_length=100)]


def check_own_form(request: Request) -> None:
    """ForgedRequest when the browser says that another site sent the form."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise ForgedRequest("this form was sent by another site")
        return
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ForgedRequest("this form was sent by another site")


def address_of(request: Request) -> str:
    return request.client.host if request.client else "unknown"


@router.get("/login")
def login_page(page: Anybody, context: Ctx, next: str = "/") -> Response:
    """The form; who is signed in already goes on."""
    if page.signed_in is not None and not page.signed_in.half_way:
        return page.go(safe_next(next))
    return _form(page, context, next=next)


def _form(
    page: PageContext,
    context: Context,
    *,
    next: str,
    name: str = "",
    wrong: str = "",
    status: int = 200,
) -> Response:
    oidc = oidc_name(page.request)
    return page.render(
        "login.html", status=status, next=safe_next(next), name=name, wrong=wrong, oidc=oidc
    )


@router.post("/login")
async def login(
    page: Anybody,
    context: Ctx,
    now: Now,
    name: Text = "",
    password: Annotated[str, Form(max_length=1000)] = "",
    to: Next = "/",
) -> Response:
    """Check a password. What was wrong is not told apart."""
    check_own_form(page.request)

    def sign_in() -> tuple[str, bool, str]:
        with context.db.read() as session:
            who = who_tries(page.request, session, name, now)
            throttle.check(session, who.keys, now=now)
            row = session.query(PersonRow).filter_by(name=name).one_or_none()
        lane = KNOWN if who.trusted else STRANGERS
        good = verify_password(row.password_hash if row else None, password, lane=lane)
        with context.db.write() as session:
            person = session.get(PersonRow, row.id) if row else None
            if not good or person is None or person.disabled_at is not None:
                throttle.failed(session, who.keys, now=now)
                return "", False, ""
            if person.totp_secret is not None:
                return sessions.start(session, person, now=now, half_way=True), True, ""
            throttle.succeeded(session, who.keys)
            people.note_login(session, person, how="password", now=now)
            mark = known.remember(session, person, address=who.address, now=now)
            return sessions.start(session, person, now=now), False, mark

    try:
        cookie, half_way, mark = await run_in_threadpool(sign_in)
    except (throttle.TooManyTries, TooManyLogins) as error:
        response = _form(page, context, next=to, name=name, wrong=error.detail, status=error.status)
        response.headers.update(error.headers)
        return response
    if not cookie:
        wrong = N_("The name or the password is wrong.")
        return _form(page, context, next=to, name=name, wrong=wrong, status=401)
    end_old(context, page.signed_in)
    response = page.go(f"/login/code?next={safe_next(to)}" if half_way else safe_next(to))
    return with_mark(with_cookie(response, page.request, cookie), page.request, mark)


def who_tries(request: Request, session: Session, name: str, now: datetime) -> throttle.Try:
    """Who tries to sign in, as far as cookie and address tell."""
    cookie = request.cookies.get(known.COOKIE, "")
    return known.recognise(session, name=name, address=address_of(request), cookie=cookie, now=now)


def with_mark(response: Response, request: Request, value: str) -> Response:
    """Have the browser be known the next time; nothing where `value` is empty."""
    if value:
        response.set_cookie(
            known.COOKIE,
            value,
            max_age=int(known.LIFE.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
            path="/login",
        )
    return response


def end_old(context: Context, old: SignedIn | None) -> None:
    """A new session never goes on under an old cookie."""
    if old is not None:
        with context.db.write() as session:
            sessions.end(session, old.session_id)
        context.get(PersonSessions).forget()


def with_cookie(response: Response, request: Request, value: str) -> Response:
    response.set_cookie(
        COOKIE,
        value,
        max_age=int(LIFE.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


@router.get("/login/code")
def code_page(page: Anybody, next: str = "/") -> Response:
    """Ask for the one-time code."""
    if page.signed_in is None:
        return page.go("/login")
    if not page.signed_in.half_way:
        return page.go(safe_next(next))
    return page.render("login_code.html", next=safe_next(next), wrong="")


@router.post("/login/code")
def check_code(
    page: Anybody,
    context: Ctx,
    session: WriteSession,
    now: Now,
    code: Text = "",
    to: Next = "/",
) -> Response:
    """Take the one-time code and begin the real session, under a new cookie."""
    check_own_form(page.request)
    half = page.signed_in
    if half is None or not half.half_way:
        return page.go("/login")
    name = half.actor.name
    who = who_tries(page.request, session, name, now)
    try:
        throttle.check(session, who.code_keys, now=now)
    except throttle.TooManyTries as error:
        return page.render("login_code.html", status=429, next=safe_next(to), wrong=error.detail)
    person = people.get_person(session, name, lock=True)
    if not totp.use_code(session, person, code, now=now):
        throttle.failed(session, who.code_keys, now=now)
        wrong = N_("The code is wrong, too old, or was used already.")
        return page.render("login_code.html", status=401, next=safe_next(to), wrong=wrong)
    throttle.succeeded(session, [*who.keys, *who.code_keys])
    sessions.end(session, half.session_id)
    mark = known.remember(session, person, address=who.address, now=now)
    people.note_login(session, person, how="password and code", now=now)
    cookie = sessions.start(session, person, now=now)
    after_commit(session, context.get(PersonSessions).forget)
    response = with_cookie(page.go(safe_next(to)), page.request, cookie)
    return with_mark(response, page.request, mark)


@router.post("/logout")
def logout(page: Anybody, context: Ctx, session: WriteSession, csrf: Text = "") -> Response:
    """End the session."""
    if page.signed_in is not None:
        check_csrf(page.signed_in, csrf)
        sessions.end(session, page.signed_in.session_id)
        after_commit(session, context.get(PersonSessions).forget)
    response = page.go("/login")
    response.delete_cookie(COOKIE)
    return response


@router.get("/login/link/{secret}")
def link_page(secret: Secret, page: Anybody, session: ReadSession, now: Now) -> Response:
    """Looking at a link does not use it up: mail programs look at links too."""
    return _link(page, session, secret, now)


def _link(
    page: PageContext,
    session: Session,
    secret: str,
    now: datetime,
    *,
    wrong: str = "",
    status: int = 200,
) -> Response:
    row = people.look_at_link(session, secret, now=now)
    oidc = oidc_name(page.request) if row is not None and row.password_hash is None else ""
    return page.render("login_link.html", status=status, secret=secret, wrong=wrong, oidc=oidc)


@router.post("/login/link/{secret}")
def use_link(
    secret: Secret,
    page: Anybody,
    context: Ctx,
    session: WriteSession,
    now: Now,
    password: Annotated[str, Form(max_length=1000)] = "",
    again: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Set the password and come in. A password that will not do does not use the link up."""
    check_own_form(page.request)
    if password != again:
        wrong = N_("The two passwords are not the same.")
        return _link(page, session, secret, now, wrong=wrong, status=422)
    nested = session.begin_nested()
    try:
        row = people.use_link(session, secret, now=now)
        people.set_password(session, row, password, actor=f"person/{row.name}", now=now)
    except ServerError as error:
        nested.rollback()
        return _link(page, session, secret, now, wrong=error.detail, status=error.status)
    nested.commit()
    half_way, mark = row.totp_secret is not None, ""
    if not half_way:
        people.note_login(session, row, how="link", now=now)
        mark = known.remember(session, row, address=address_of(page.request), now=now)
    cookie = sessions.start(session, row, now=now, half_way=half_way)
    after_commit(session, context.get(PersonSessions).forget)
    response = with_cookie(page.go("/login/code" if half_way else "/"), page.request, cookie)
    return with_mark(response, page.request, mark)


@router.post("/language")
def set_language(
    page: Anybody, session: WriteSession, context: Ctx, language: Text = "", to: Next = "/"
) -> Response:
    """Show the page in another language from now on; for a person, in every browser."""
    check_own_form(page.request)
    response = page.go(safe_next(to))
    if language in LANGUAGES:
        response.set_cookie("pilotwave_language", language, max_age=31_536_000, samesite="lax")
        if page.signed_in is not None and not page.signed_in.half_way:
            people.get_person(session, page.actor.name).language = language
            after_commit(session, context.get(PersonSessions).forget)
    return response


@router.post("/theme")
def set_theme(page: Anybody, theme: Text = "", to: Next = "/") -> Response:
    """Dark, light, or as the browser says."""
    check_own_form(page.request)
    response = page.go(safe_next(to))
    response.set_cookie("pilotwave_theme", theme[:10], max_age=31_536_000, samesite="lax")
    return response
