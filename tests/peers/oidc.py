"""A small OpenID Connect provider, which lies as it was told to."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "pilotwave", "a-client-secret"


@cache
def _keys() -> tuple[RSAKey, RSAKey]:
    """Two keys of one name, made once: the second is a liar's."""
    first, second = (RSAKey.generate_key(2048, {"kid": "k1"}) for _ in range(2))
    return first, second


@dataclass
class Provider:
    """`claims` are added to each ID token. `lies` are: `signature`, `nonce`, `no nonce`,
    `audience`, `audiences` (ours among others), `issuer`, `expired`, `no expiry`,
    `from tomorrow`, `none`, `hs256 with the public key`."""

    claims: dict[str, Any] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)
    url: str = ""
    asked: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key, self.other = _keys()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.configuration),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/keys", self.keys),
            ]
        )

    def configuration(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }
        )

    def authorize(self, request: Request) -> Response:
        """Nobody is asked anything here: the person is signed in at once."""
        wish = dict(request.query_params)
        assert wish["client_id"] == CLIENT
        assert wish["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.asked[code] = wish
        back = urlencode({"code": code, "state": wish["state"]})
        return RedirectResponse(f"{wish['redirect_uri']}?{back}", 303)

    async def token(self, request: Request) -> Response:
        form = {key: value[0] for key, value in parse_qs((await request.body()).decode()).items()}
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        known = kind == "Basic" and b64decode(value).decode() == f"{CLIENT}:{SECRET}"
        wish = self.asked.pop(form.get("code", ""), None)
        proof = wish and create_s256_code_challenge(form["code_verifier"])
        if not known or wish is None or proof != wish["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(
            {"token_type": "Bearer", "access_token": "x", "id_token": self._id(wish)}
        )

    def _id(self, wish: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": "https://elsewhere.example" if "issuer" in self.lies else self.url,
            "aud": "another" if "audience" in self.lies else CLIENT,
            "sub": sha256(str(self.claims).encode()).hexdigest()[:16],
            "iat": now - 7200 if "expired" in self.lies else now,
            "exp": now - 3600 if "expired" in self.lies else now + 600,
            "nonce": "another" if "nonce" in self.lies else wish["nonce"],
            **self.claims,
        }
        if "audiences" in self.lies:
            claims["aud"] = [CLIENT, "another"]
        if "no nonce" in self.lies:
            del claims["nonce"]
        if "no expiry" in self.lies:
            del claims["exp"]
        if "from tomorrow" in self.lies:
            claims |= {"iat": now + 86_400, "nbf": now + 86_400, "exp": now + 90_000}
        if "hs256 with the public key" in self.lies:
            return self._by_public_key(claims)
        if "none" in self.lies:
            parts = ({"alg": "none"}, claims)
            return (
                ".".join(
                    urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts
                )
                + "."
            )
        key = self.other if "signature" in self.lies else self.key
        return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, key)

    def _by_public_key(self, claims: dict[str, Any]) -> str:
        """Signed with HMAC, its secret the public key that everybody knows."""

        def plain(raw: bytes) -> str:
            return urlsafe_b64encode(raw).decode().rstrip("=")

        parts = ({"alg": "HS256", "kid": "k1"}, claims)
        text = ".".join(plain(json.dumps(part).encode()) for part in parts)
        made = hmac.digest(self.key.as_pem(private=False), text.encode(), "sha256")
        return f"{text}.{plain(made)}"

    def keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})
