"""Secrets, and the signature of what is sent: the Standard Webhooks scheme, symmetric form.

The signature is HMAC-SHA256 over `<id>.<timestamp>.<body>`, so neither the body nor its age can be
changed. Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hmac
import secrets

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """Return a secret as it is shown to the operator: `whsec_` and base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def changed_secret(kept: str) -> tuple[str, str]:
    """Return a new secret and what to keep: it, and the one before for those who change over."""
    new = new_secret()
    return new, f"{new} {kept.split()[0]}"


def sign(kept: str, *, id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature`: one signature for each secret kept, the newest first."""
    message = b"%b.%d.%b" % (id.encode(), timestamp, body)
    return " ".join(f"v1,{_mac(secret, message)}" for secret in kept.split())


def _mac(secret: str, message: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, message, "sha256")).decode()
