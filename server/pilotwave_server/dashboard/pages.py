"""What every page has: who is looking, in which language, how it is rendered, how errors look.

    @router.get("/rollouts/{rollout}")
    def show(rollout: RolloutName, page: Look, session: ReadSession, now: Now) -> Response:
        return page.render("rollout.html", rollout=api.show(rollout, page.actor, session, now))

A page asks the very function that answers its API address, so both say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from pilotwave_protocol.errors import PilotwaveError
from pilotwave_server.base_path import add_to_links, without_base
from pilotwave_server.dashboard import i18n
from pilotwave_server.dashboard.confirm import Asked
from pilotwave_server.dashboard.rendering import environment, in_one_zone
from pilotwave_server.dashboard.sentences import translated
from pilotwave_server.deps import Ctx, Now, check_csrf, get_context, get_signed_in
from pilotwave_server.errors import ServerError
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.operators.service import check_role
from pilotwave_server.operators.sessions import SignedIn
from pilotwave_server.routing import SessionRoute

FLASH = "pilotwave_flash"
THEME = "pilotwave_theme"
THEMES = ("light", "dark")
MAX_NEXT = 500
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class SignInFirst(Exception):
    """Nobody is signed in: off to the login page, and back afterwards."""


@dataclass(frozen=True)
class PageContext:
    """One request for a page, and who makes it (None: a stranger)."""

    request: Request
    signed_in: SignedIn | None
    language: str
    fleet: str
    origin: str = ""
    """Where people open the page: as the settings say, else as this browser asked."""
    base: str = ""
    """The path of that address: `/pilotwave`, or empty."""

    @property
    def actor(self) -> Actor:
        """Who looks; SignInFirst for a stranger."""
        if self.signed_in is None or self.signed_in.half_way:
            raise SignInFirst
        return self.signed_in.actor

    def may(self, role: str) -> bool:
        """Whether the one who looks may do what a role may."""
        signed_in = self.signed_in
        return signed_in is not None and signed_in.actor.role.covers(Role(role))

    def need(self, role: Role) -> Actor:
        """Who looks, if the role allows it. RoleForbids, SignInFirst."""
        actor = self.actor
        check_role(actor, role)
        return actor

    def told(self, text: str, **values: object) -> str:
        """A sentence in the viewer's language; `text` is marked with `N_`."""
        return i18n.translations(self.language).gettext(text) % values

    def said(self, sentence: str) -> str:
        """A sentence of the server in the viewer's language, where that is known."""
        found = None
        if self.language != i18n.DEFAULT:
            found = translated(sentence, i18n.translations(self.language).gettext)
        return found or sentence

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks for a part of the page only."""
        return self.request.headers.get("hx-request") == "true"

    def render(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """The page as HTML."""
        language = self.language
        theme = self.request.cookies.get(THEME, "")
        text = (
            environment(language)
            .get_template(template)
            .render(
                page=self,
                path=self.request.url.path,
                query=self.request.url.query,
                language=language,
                languages=i18n.LANGUAGES,
                theme=theme if theme in THEMES else "auto",
                csrf=self.signed_in.csrf if self.signed_in else "",
                flash=unquote(self.request.cookies.get(FLASH, "")),
                origin=self.origin,
                **values,
            )
        )
        response = HTMLResponse(add_to_links(in_one_zone(text), self.base), status)
        if FLASH in self.request.cookies and not self.is_fragment:
            response.delete_cookie(FLASH)
        return response

    def go(self, path: str, *, say: str = "") -> Response:
        """Send the browser to another page, which says `say` once."""
        response = RedirectResponse(path, 303)
        if say:
            told = quote(say[:300])
            response.set_cookie(FLASH, told, max_age=60, httponly=True, samesite="strict")
        return response


async def get_page(request: Request, context: Ctx, now: Now) -> PageContext:
    """The request as a page, whoever makes it."""
    signed_in = await get_signed_in(request, context, now)
    chosen = request.cookies.get("pilotwave_language") or (signed_in and signed_in.language)
    language = i18n.choose(chosen or None, request.headers.get("accept-language", ""))
    origin = context.settings.people_url or str(request.base_url).rstrip("/")
    base = context.settings.base_path
    return PageContext(
        request, signed_in, language, context.get(FleetState).snapshot.fleet, origin, base
    )


Anybody = Annotated[PageContext, Depends(get_page)]


async def get_looking(page: Anybody) -> PageContext:
    """The request of somebody who is signed in."""
    page.need(Role.VIEWER)
    return page


Look = Annotated[PageContext, Depends(get_looking)]


def acting(role: Role) -> Callable[..., Coroutine[Any, Any, PageContext]]:
    """A dependency: somebody of this role changes something, from a page of ours."""

    async def get(page: Anybody) -> PageContext:
        page.need(role)
        await check_form(page)
        return page

    return get


async def check_form(page: PageContext) -> None:
    """ForgedRequest unless a form carries its session's token, in a field or (htmx) a header."""
    sent = page.request.headers.get("x-csrf-token", "")
    if not sent:
        form = await page.request.form()
        sent = str(form.get("csrf", ""))
    assert page.signed_in is not None
    check_csrf(page.signed_in, sent)


ActViewer = Annotated[PageContext, Depends(acting(Role.VIEWER))]
ActOperator = Annotated[PageContext, Depends(acting(Role.OPERATOR))]


def safe_next(path: str) -> str:
    """`path` if it leads to a page of ours, else the first page."""
    parts = urlsplit(path)
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path
    plain = path.isprintable() and len(path) <= MAX_NEXT
    return path if ours and plain and not parts.scheme and not parts.netloc else "/"


def oidc_name(request: Request) -> str:
    """What people call the provider that they may sign in with; empty: there is none."""
    settings = get_context(request).settings
    return settings.oidc_name if settings.oidc_issuer else ""


class PageRoute(SessionRoute):
    """A route whose "no" is a page too, and whose answers carry the security headers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                response = await answer(request)
            except SignInFirst:
                response = _to_login(request)
            except Asked as asked:
                response = await _question(request, asked)
            except (ServerError, PilotwaveError, RequestValidationError, HTTPException) as error:
                response = await _failed(request, error)
            for name, value in SECURITY.items():
                response.headers.setdefault(name, value)
            return response

        return guarded


def _to_login(request: Request) -> Response:
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    wanted = here if request.method == "GET" and here != "/" else ""
    return RedirectResponse(f"/login?next={quote(wanted)}" if wanted else "/login", 303)


async def _question(request: Request, asked: Asked) -> Response:
    """The page that asks; what the form said is sent again with the answer."""
    context = get_context(request)
    page = await get_page(request, context, context.clock())
    form = await request.form()
    given = [(k, v) for k, v in form.multi_items() if isinstance(v, str) and k != "sure"]
    hidden = [(k, v) for k, v in given if k != "reason" or not asked.wants_reason]
    came_from = urlsplit(request.headers.get("referer", "")).path
    return page.render(
        "confirm.html",
        consequence=asked.consequence,
        wants_reason=asked.wants_reason,
        fields=hidden,
        reason=dict(given).get("reason", ""),
        back=safe_next(without_base(came_from, page.base) or "/"),
    )


async def _failed(request: Request, error: Exception) -> Response:
    context = get_context(request)
    page = await get_page(request, context, context.clock())
    status, sentence, headers = told(error)
    response = page.render("error.html", status=status, code=status, sentence=sentence)
    response.headers.update(headers)
    return response


def told(error: Exception) -> tuple[int, str, dict[str, str]]:
    """An error's status, sentence and headers."""
    if isinstance(error, ServerError):
        return error.status, error.detail, error.headers
    if isinstance(error, RequestValidationError):
        first = next(iter(error.errors()), None)
        return 422, first["msg"] if first else "the request could not be read", {}
    if isinstance(error, HTTPException):
        return error.status_code, "there is no such page", dict(error.headers or {})
    return 422, str(error), {}


def page_router() -> APIRouter:
    """A router of pages, which are no part of the API."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)
