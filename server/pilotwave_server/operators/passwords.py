"""Passwords: argon2id at rest (RFC 9106's second choice, which argon2-cffi takes), and how plain
one may be.

A few at a time: each check takes 64 MiB, and strangers may ask for as many as they like.
"""

from __future__ import annotations

import functools
import threading
from typing import ClassVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pilotwave_server.errors import Invalid

MIN_LENGTH = 10
MAX_LENGTH = 256
AT_ONCE = threading.BoundedSemaphore(2)
_hasher = PasswordHasher()


class WeakPassword(Invalid):
    code: ClassVar[str] = "weak_password"


def check_quality(password: str, *, name: str) -> None:
    """WeakPassword unless it is long enough, not too plain and not the name.

    Length counts and rules of composition do not (NIST SP 800-63B, 3.1.1.2).
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise WeakPassword(f"expected a password of {MIN_LENGTH} to {MAX_LENGTH} characters")
    if len(set(password)) < 5 or name.lower() in password.lower():
        raise WeakPassword("expected a password that is not so easy to guess")


def hash_password(password: str) -> str:
    with AT_ONCE:
        return _hasher.hash(password)


def verify_password(known: str | None, password: str) -> bool:
    """Whether the password is the one. Without a known hash it takes as long, and is False."""
    with AT_ONCE:
        try:
            _hasher.verify(known or nobody(), password[:MAX_LENGTH])
        except (VerificationError, InvalidHashError):
            return False
        return known is not None


@functools.cache
def nobody() -> str:
    """A hash of no one's password, made once."""
    return _hasher.hash("nobody has this password")
