"""Secrets of 32 bytes in shares, of which `threshold` give the secret and fewer nothing.

Shamir, "How to share a secret", Communications of the ACM 22 (1979): the values of a random
polynomial over a prime field at 1, 2, …; its value at 0 is the secret.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from pilotwave_protocol.errors import BadMessage

PRIME = 2**256 + 297
"""The least prime above all secrets."""
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, *, threshold: int, count: int) -> list[bytes]:
    """Return the shares of the holders 1 to `count`, in order."""
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        raise ValueError(f"expected {SECRET_BYTES} bytes and 1 <= threshold <= count")
    factors = [int.from_bytes(secret, "big")]
    factors += [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return [_value(factors, x).to_bytes(SHARE_BYTES, "big") for x in range(1, count + 1)]


def _value(factors: list[int], x: int) -> int:
    found = 0
    for factor in reversed(factors):
        found = (found * x + factor) % PRIME
    return found


def join(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret of shares by their holders' numbers, or raise `BadMessage`.

    Of too few shares, or of wrong ones, it is another secret or none: the caller checks it.
    """
    secret = 0
    for x, share in shares.items():
        over = under = 1
        for other in shares:
            if other != x:
                over = over * other % PRIME
                under = under * (other - x) % PRIME
        secret += int.from_bytes(share, "big") * over * pow(under, -1, PRIME)
    secret %= PRIME
    if secret.bit_length() > 8 * SECRET_BYTES:
        raise BadMessage("expected shares of one secret; these are of none")
    return secret.to_bytes(SECRET_BYTES, "big")
