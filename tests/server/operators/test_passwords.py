"""How plain a password may be, and how it is kept."""

from __future__ import annotations

import pytest

from pilotwave_server.operators.passwords import (
    WeakPassword,
    check_quality,
    hash_password,
    verify_password,
)


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaa", "my-name-is-ada", "x" * 300])
def test_a_password_that_is_too_plain_is_refused(password: str) -> None:
    with pytest.raises(WeakPassword):
        check_quality(password, name="ada")


def test_a_password_is_told_from_another_and_nobody_has_any() -> None:
    known = hash_password("correct horse battery")
    assert verify_password(known, "correct horse battery")
    assert not verify_password(known, "correct horse batterz")
    assert not verify_password(None, "nobody has this password")
    assert not verify_password("not a hash", "x")
