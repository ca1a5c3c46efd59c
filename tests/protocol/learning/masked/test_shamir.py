"""Secrets in shares: enough give it, fewer are as good as none."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked.shamir import PRIME, SHARE_BYTES, join, split


def test_the_modulus_is_prime() -> None:
    """Miller and Rabin's test, 40 times."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(40):
        x = pow(secrets.randbelow(PRIME - 3) + 2, odd, PRIME)
        seen = [pow(x, 2**n, PRIME) for n in range(twos)]
        assert x == 1 or PRIME - 1 in seen


@given(st.binary(min_size=32, max_size=32), st.data())
def test_any_of_the_holders_that_are_enough_have_the_secret(secret: bytes, data) -> None:
    count = data.draw(st.integers(1, 16))
    threshold = data.draw(st.integers(1, count))
    shares = dict(enumerate(split(secret, threshold=threshold, count=count), 1))
    some = data.draw(st.permutations(list(shares)))[:threshold]
    assert join({x: shares[x] for x in some}) == secret
    assert join(shares) == secret


def test_of_one_share_too_few_each_secret_is_as_likely() -> None:
    shares = split(bytes(32), threshold=3, count=4)
    for wanted in (bytes(32), bytes([255] * 32)):
        # the third point of the parabola through the two shares and the wanted secret
        s, a, b = (int.from_bytes(x, "big") for x in (wanted, shares[0], shares[1]))
        third = (s - 3 * a + 3 * b) % PRIME
        told = {1: shares[0], 2: shares[1], 3: third.to_bytes(SHARE_BYTES, "big")}
        assert join(told) == wanted


def test_wrong_shares_give_another_secret_or_none() -> None:
    shares = dict(enumerate(split(bytes(32), threshold=2, count=3), 1))
    assert join({**shares, 1: bytes(33)}) != bytes(32)
    with pytest.raises(BadMessage, match="of none"):
        join({1: (2**256 + 5).to_bytes(33, "big")})
    with pytest.raises(ValueError, match="threshold"):
        split(bytes(32), threshold=4, count=3)
