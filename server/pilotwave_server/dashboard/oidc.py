"""Signing in with OpenID Connect: authorisation code with PKCE, state and nonce.

A person comes in whose account an admin made under the same name (`preferred_username`, else the
part of a verified `email` before the @). The first login ties the account to the provider's subject
for good; nobody is made from nothing.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode

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
from pilotwave_server.dashboard.pages import Anybody, Page, page_router, safe_next
from pilotwave_server.dashboard.signing_in import end_old, with_cookie
from pilotwave_server.db import after_commit
from pilotwave_server.deps import Ctx, Now, WriteSession
from pilotwave_server.errors import Forbidden, NotFound, Unavailable
from pilotwave_server.operators import people, sessions
from pilotwave_server.operators.tables import PersonRow

router = page_router()
WAY = "pilotwave_oidc"
WAY_S = 600
TIMEOUT_S = 10
ALGORITHMS = ["RS256", "ES256", "EdDSA", "PS256"]


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


def _back(context: Context, page: Page) -> str:
    base = context.settings.public_url.rstrip("/") or str(page.request.base_url).rstrip("/")
    return f"{base}/login/oidc/back"


@router.get("/login/oidc")
def begin(page: Anybody, context: Ctx, next: str = "/") -> Response:
    """Off to the provider; what has to come back is in a cookie of this browser."""
    found = _configuration(context)
    way = {
        "state": secrets.token_urlsafe(24),
        "nonce": secrets.token_urlsafe(24),
        "verifier": generate_token(48),
        "next": safe_next(next),
    }
    wish = {
        "response_type": "code",
        "client_id": context.settings.oidc_client_id,
        "redirect_uri": _back(context, page),
        "scope": "openid profile email",
        "state": way["state"],
        "nonce": way["nonce"],
        "code_challenge": create_s256_code_challenge(way["verifier"]),
        "code_challenge_method": "S256",
    }
    response = RedirectResponse(f"{found['authorization_endpoint']}?{urlencode(wish)}", 303)
    response.set_cookie(
        WAY,
        json.dumps(way),
        max_age=WAY_S,
        httponly=True,
        samesite="lax",
        secure=page.request.url.scheme == "https",
        path="/login/oidc",
    )
    return response


@router.get("/login/oidc/back")
def back(
    page: Anybody,
    context: Ctx,
    session: WriteSession,
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
    found = _configuration(context)
    claims = _claims(context, page, found, code, way)
    row = _person(session, claims)
    row.oidc_subject = _subject(claims)
    people.note_login(session, row, how="oidc", now=now)
    cookie = sessions.start(session, row, now=now)
    old = page.signed_in
    after_commit(session, lambda: end_old(context, old))
    response = with_cookie(page.go(safe_next(way["next"])), page.request, cookie)
    response.delete_cookie(WAY, path="/login/oidc")
    return response


def _way(page: Page) -> dict[str, str]:
    try:
        way = json.loads(page.request.cookies.get(WAY, ""))
        return {key: str(way[key]) for key in ("state", "nonce", "verifier", "next")}
    except (ValueError, KeyError, TypeError):
        raise OidcRefused("this login was not begun in this browser: begin again") from None


def _claims(
    context: Context, page: Page, found: dict[str, Any], code: str, way: dict[str, str]
) -> CodeIDToken:
    try:
        token = _token(context, page, found["token_endpoint"], code, way["verifier"])
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


def _token(context: Context, page: Page, endpoint: str, code: str, verifier: str) -> dict[str, Any]:
    settings = context.settings
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": _back(context, page),
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


def _subject(claims: CodeIDToken) -> str:
    return f"{claims['iss']} {claims['sub']}"[:600]


def _person(session: Session, claims: CodeIDToken) -> PersonRow:
    known = select(PersonRow).where(PersonRow.oidc_subject == _subject(claims))
    row = session.scalars(known).one_or_none()
    if row is None:
        name = _name(claims)
        row = session.scalars(
            select(PersonRow).where(PersonRow.name == name, PersonRow.oidc_subject.is_(None))
        ).one_or_none()
    if row is None or row.disabled_at is not None:
        raise OidcRefused("you have no account here: ask an admin for one")
    return row


def _name(claims: CodeIDToken) -> str:
    name = claims.get("preferred_username")
    if not name and claims.get("email_verified") is True:
        name = str(claims.get("email", "")).partition("@")[0]
    text = str(name or "").lower()
    return text if re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", text) else ""
