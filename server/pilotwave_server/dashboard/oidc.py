"""Signing in with OpenID Connect: authorisation code with PKCE, state and nonce.

Somebody is who the issuer and the subject say, and nobody else: no name, address, role or group
that the provider tells leads to an account or changes one. An admin binds a subject to an account
(`people.bind`), or the person does by a login link. Others get an account of their own where the
setting `oidc_new_people` gives them a role, else a page that says what an admin has to type.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar
from urllib.parse import quote, unquote, urlencode

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from fastapi import Query
from fastapi.responses import RedirectResponse, Response
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.context import Context
from pilotwave_server.dashboard.pages import Anybody, PageContext, page_router, safe_next
from pilotwave_server.dashboard.signing_in import Secret, check_own_form, end_old, with_cookie
from pilotwave_server.db import lock_fleet
from pilotwave_server.deps import Ctx, Now
from pilotwave_server.errors import Forbidden, NotFound, Unavailable
from pilotwave_server.operators import people, sessions
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.sessions import PersonSessions
from pilotwave_server.operators.tables import OperatorTokenRow, PersonRow

router = page_router()
WAY = "pilotwave_oidc"
WAY_S = 600
TIMEOUT_S = 10
ALGORITHMS = ["RS256", "ES256", "EdDSA", "PS256"]
NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
MAX_NAME = 64
# names that say something here, whoever asks for them
NOBODYS = frozenset({"admin", "administrator", "root", "server", "system"})


class OidcRefused(Forbidden):
    """The provider's answer does not let anybody in."""

    code: ClassVar[str] = "oidc_refused"


class OidcUnavailable(Unavailable):
    code: ClassVar[str] = "oidc_unavailable"


def _configuration(context: Context) -> dict[str, Any]:
    issuer = context.settings.oidc_issuer
    if not issuer:
        raise NotFound("this server has no single sign-on: see the setting oidc_issuer")
    try:
        address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        answer = httpx.get(address, timeout=TIMEOUT_S).raise_for_status()
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise OidcUnavailable(f"{context.settings.oidc_name} does not answer: {error}") from None
    if found.get("issuer", "").rstrip("/") != issuer.rstrip("/"):
        raise OidcRefused(f"{issuer} calls itself {found.get('issuer')}")
    return found


def _back(context: Context) -> str:
    # never of the Host that the request names: the code would go where a stranger says
    return f"{context.settings.people_url}/login/oidc/back"


@router.get("/login/oidc")
def begin(page: Anybody, context: Ctx, next: str = "/") -> Response:
    """Off to the provider; what has to come back is in a cookie of this browser."""
    return _off(context, next=safe_next(next))


@router.post("/login/link/{secret}/oidc")
def begin_by_link(page: Anybody, context: Ctx, secret: Secret) -> Response:
    """Off to the provider, to bind whom it calls back to the account of a login link."""
    check_own_form(page.request)
    return _off(context, next="/", link=secret)


def _off(context: Context, *, next: str, link: str = "") -> Response:
    found = _configuration(context)
    way = {
        "state": secrets.token_urlsafe(24),
        "nonce": secrets.token_urlsafe(24),
        "verifier": generate_token(48),
        "next": next,
        "link": link,
    }
    wish = {
        "response_type": "code",
        "client_id": context.settings.oidc_client_id,
        "redirect_uri": _back(context),
        "scope": "openid profile email",
        "state": way["state"],
        "nonce": way["nonce"],
        "code_challenge": create_s256_code_challenge(way["verifier"]),
        "code_challenge_method": "S256",
    }
    response = RedirectResponse(f"{found['authorization_endpoint']}?{urlencode(wish)}", 303)
    response.set_cookie(
        WAY,
        quote(json.dumps(way)),  # a cookie with escapes would be left out (`strangers.py`)
        max_age=WAY_S,
        httponly=True,
        samesite="lax",
        secure=context.settings.people_url.startswith("https:"),
        path="/login/oidc",
    )
    return response


@router.get("/login/oidc/back")
def back(
    page: Anybody,
    context: Ctx,
    now: Now,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Back from the provider: state, then the code for an ID token, then its claims."""
    way = _way(page)
    if not state or not secrets.compare_digest(state.encode(), way["state"].encode()):
        raise OidcRefused("this login was not begun in this browser: begin again")
    if error or not code:
        raise OidcRefused(f"{context.settings.oidc_name} refused: {error or 'no code came'}")
    who = _who(context, _claims(context, _configuration(context), code, way))
    # the provider has answered by now: a transaction would hold up every writer meanwhile
    with context.db.write() as session:
        row = _bound(session, who, way["link"], now) if way["link"] else _known(session, who, now)
        people.note_login(session, row, how="oidc", now=now)
        cookie = sessions.start(session, row, now=now)
    end_old(context, page.signed_in)
    context.get(PersonSessions).forget()
    response = with_cookie(page.go(safe_next(way["next"])), page.request, cookie)
    response.delete_cookie(WAY, path="/login/oidc")
    return response


def _way(page: PageContext) -> dict[str, str]:
    try:
        way = json.loads(unquote(page.request.cookies.get(WAY, "")))
        return {key: str(way[key]) for key in ("state", "nonce", "verifier", "next", "link")}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OidcRefused("this login was not begun in this browser: begin again") from None


def _claims(context: Context, found: dict[str, Any], code: str, way: dict[str, str]) -> CodeIDToken:
    try:
        token = _token(context, found["token_endpoint"], code, way["verifier"])
        keys = KeySet.import_key_set(
            httpx.get(found["jwks_uri"], timeout=TIMEOUT_S).raise_for_status().json()
        )
        decoded = jwt.decode(token["id_token"], keys, algorithms=ALGORITHMS)
        options = {
            "iss": {"essential": True, "value": found["issuer"]},
            "aud": {"essential": True, "value": context.settings.oidc_client_id},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            options,
            {"nonce": way["nonce"], "client_id": context.settings.oidc_client_id},
        )
        claims.validate(leeway=60)
    except httpx.HTTPError as error:
        raise OidcUnavailable(f"{context.settings.oidc_name} does not answer: {error}") from None
    except (JoseError, AuthlibBaseError, ValueError, KeyError, TypeError) as error:
        raise OidcRefused(f"the provider's answer cannot be believed: {error}") from None
    return claims


def _token(context: Context, endpoint: str, code: str, verifier: str) -> dict[str, Any]:
    settings = context.settings
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": _back(context),
        "client_id": settings.oidc_client_id,
        "code_verifier": verifier,
    }
    secret = settings.oidc_client_secret
    basic = httpx.BasicAuth(settings.oidc_client_id, secret) if secret else None
    answer = httpx.post(endpoint, data=form, auth=basic, timeout=TIMEOUT_S)
    if answer.status_code in (400, 401):
        raise OidcRefused(f"{settings.oidc_name} did not take the code")
    token: dict[str, Any] = answer.raise_for_status().json()
    return token


@dataclass(frozen=True)
class Who:
    """Somebody as the provider told. `new` is the role of one who has no account; None: no role."""

    issuer: str
    subject: str
    name: str
    new: Role | None

    @property
    def identity(self) -> str:
        return people.identity(self.issuer, self.subject)

    @property
    def ask(self) -> str:
        """What to send to an admin."""
        name = self.name if NAME.fullmatch(self.name) else "NAME"
        issuer, subject = shlex.quote(self.issuer), shlex.quote(self.subject)
        told = f"pilotwave people bind {name} --issuer {issuer} --subject {subject}"
        return f"ask an admin to run: {told}"


def _who(context: Context, claims: CodeIDToken) -> Who:
    new = context.settings.oidc_new_people
    who = Who(claims["iss"], claims["sub"], _name(claims), None if new == "none" else Role(new))
    try:
        people.identity(who.issuer, who.subject)
    except people.BadSubject as error:
        raise OidcRefused(f"the provider's answer cannot be believed: {error}") from None
    return who


def _known(session: Session, who: Who, now: datetime) -> PersonRow:
    lock_fleet(session)  # of two first logins at once, the second finds what the first made
    known = select(PersonRow).where(PersonRow.oidc_subject == who.identity)
    row = session.scalars(known).one_or_none() or _new(session, who, now)
    if row.disabled_at is not None:
        raise OidcRefused(f"your account {row.name} is disabled: ask an admin to enable it")
    return row


def _new(session: Session, who: Who, now: datetime) -> PersonRow:
    if who.new is None:
        raise OidcRefused(f"you have no account here: {who.ask}")
    if not NAME.fullmatch(who.name) or len(who.name) > MAX_NAME:
        raise OidcRefused(f"your name there is no name of an account here: {who.ask}")
    if who.name in NOBODYS or _is_taken(session, who.name):
        raise OidcRefused(
            f"the name {who.name} is taken here, and a name does not show that the account is "
            f"yours. If it is, {who.ask}; if it is not, they choose another name for you"
        )
    row = people.create_person(session, name=who.name, role=who.new, actor="oidc", now=now)
    _bind(session, row, who, now)
    return row


def _is_taken(session: Session, name: str) -> bool:
    """By a person, or by a token, whose actions would read as this person's."""
    asked = (PersonRow.name, OperatorTokenRow.name)
    return any(session.scalar(select(column).where(column == name)) for column in asked)


def _bound(session: Session, who: Who, link: str, now: datetime) -> PersonRow:
    row = people.use_link(session, link, now=now)
    _bind(session, row, who, now)
    return row


def _bind(session: Session, row: PersonRow, who: Who, now: datetime) -> None:
    people.bind(
        session,
        row,
        issuer=who.issuer,
        subject=who.subject,
        actor=f"person/{row.name}",
        now=now,
    )


def _name(claims: CodeIDToken) -> str:
    """What a new account would be called."""
    name = claims.get("preferred_username")
    if not name and claims.get("email_verified") is True:
        name = str(claims.get("email", "")).partition("@")[0]
    return name.lower() if isinstance(name, str) and name.isascii() else ""
