"""`pilotwave people` against a real server."""

from __future__ import annotations

from tests.cli.operator import Operator

ISSUER = "https://idp.example"


def test_a_person_is_made_bound_listed_and_unbound(pw: Operator, name: str) -> None:
    assert "/login/link/" in pw("people", "create", name, "--role", "operator")
    assert "/login/link/" in pw("people", "link", name)
    bound = pw("people", "bind", name, "--subject", "a b", "--issuer", ISSUER)
    assert f"{name} is bound to {ISSUER} a b" in bound
    (row,) = [row for row in pw.json("people", "list") if row["name"] == name]
    assert (row["oidc_subject"], row["password"]) == (f"{ISSUER} a b", False)
    other = f"{name}-2"
    pw("people", "create", other, "--role", "viewer")
    taken = pw.fails("people", "bind", other, "--subject", "a b", "--issuer", ISSUER)
    assert f"bound to {name}" in taken
    pw("people", "unbind", "--yes", name)
    (row,) = [row for row in pw.json("people", "list") if row["name"] == name]
    assert row["oidc_subject"] is None


def test_what_cannot_be_bound_is_told_in_a_sentence(pw: Operator, name: str) -> None:
    pw("people", "create", name, "--role", "viewer")
    assert "oidc_issuer" in pw.fails("people", "bind", name, "--subject", "x")
    long = pw.fails("people", "bind", name, "--issuer", ISSUER, "--subject", "x" * 256)
    assert "255" in long
    assert "there is no person nobody" in pw.fails("people", "unbind", "--yes", "nobody")
    assert "expected small letters" in pw.fails("people", "link", "../tokens", status=2)
