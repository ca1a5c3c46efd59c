"""`pilotwave login`: a token that is typed, piped in or given."""

from __future__ import annotations

from tests.cli.operator import Operator


def test_token_is_read_from_a_pipe_without_a_word(pw: Operator) -> None:
    done = pw.run("login", pw.url, stdin=f"{pw.token}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"logged in to {pw.url}" in done.stdout
    assert "models" in pw.but(token="", url="")("status")


def test_an_empty_pipe_is_refused_with_what_was_expected(pw: Operator) -> None:
    line = pw.fails("login", pw.url, status=2)
    assert "no token came by standard input; give one there or by --token" in line
