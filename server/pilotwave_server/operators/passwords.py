"""Passwords: argon2id at rest (RFC 9106's second choice, which argon2-cffi takes), and how plain
one may be.

Each check takes 64 MiB, and strangers may ask for as many as they like: so a few are made at a
time, a few more wait, and the rest are told to come again. Who signed in here before has a lane
that strangers cannot fill.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pilotwave_server.errors import Invalid, Unavailable

MIN_LENGTH = 10
MAX_LENGTH = 256
WAITING = 8
_hasher = PasswordHasher()


class WeakPassword(Invalid):
    code: ClassVar[str] = "weak_password"


class TooManyLogins(Unavailable):
    """More passwords to check at once than this process has memory set aside for."""

    code: ClassVar[str] = "too_many_logins"


class Lane:
    """At most `at_once` run, at most `waiting` wait. TooManyLogins beyond."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._run = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(at_once + waiting)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and hold it for the block."""
        if not self._places.acquire(blocking=False):
            raise TooManyLogins("too many people sign in at once: try again in a moment")
        try:
            with self._run:
                yield
        finally:
            self._places.release()


STRANGERS = Lane(at_once=2, waiting=WAITING)
KNOWN = Lane(at_once=1, waiting=WAITING)


def check_quality(password: str, *, name: str) -> None:
    """WeakPassword unless it is long enough, not too plain and not the name.

    Length counts and rules of composition do not (NIST SP 800-63B, 3.1.1.2).
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise WeakPassword(f"expected a password of {MIN_LENGTH} to {MAX_LENGTH} characters")
    if len(set(password)) < 5 or name.lower() in password.lower():
        raise WeakPassword("expected a password that is not so easy to guess")


def hash_password(password: str) -> str:
    """The hash to keep. TooManyLogins."""
    with KNOWN.turn():
        return _hasher.hash(password)


def verify_password(known: str | None, password: str, *, lane: Lane = STRANGERS) -> bool:
    """Whether the password is the one. Without a known hash it takes as long, and is False.

    TooManyLogins where the lane is full.
    """
    with lane.turn():
        try:
            _hasher.verify(known or nobody(), password[:MAX_LENGTH])
        except (VerificationError, InvalidHashError):
            return False
        return known is not None


@functools.cache
def nobody() -> str:
    """A hash of no one's password, made once."""
    return _hasher.hash("nobody has this password")
