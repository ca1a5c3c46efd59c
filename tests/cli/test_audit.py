"""`pilotwave audit`: an export that verifies, and one that somebody changed."""

from __future__ import annotations

import json

from tests.cli.operator import Operator


def test_the_log_verifies_from_the_server_and_from_a_file(pw: Operator) -> None:
    pw("tokens", "create", "audited", "--role", "viewer")
    assert "unchanged" in pw("audit", "verify")
    pw("audit", "export", "--file", "log.jsonl")
    head = json.loads(pw("audit", "verify", "--file", "log.jsonl", "--json"))["head"]
    pw("tokens", "create", "audited-2", "--role", "viewer")
    assert "unchanged" in pw("audit", "verify", "--noted", head)
    refused = pw.run("audit", "verify", "--noted", "f" * 64)
    assert refused.returncode == 1
    assert "rewritten or cut" in refused.stderr


def test_a_changed_export_is_found_and_a_broken_one_is_told(pw: Operator) -> None:
    pw("tokens", "create", "ci-3", "--role", "viewer")
    pw("audit", "export", "--file", "log.jsonl")
    log = pw.home / "log.jsonl"
    good = log.read_text()
    log.write_text(good.replace('"viewer"', '"admin"'))
    refused = pw.run("audit", "verify", "--file", "log.jsonl")
    assert refused.returncode == 1
    assert "does not fit the chain" in refused.stderr
    for bad in ("nothing\n", "[]\n", '{"id": 1}\n'):
        log.write_text(bad)
        assert "line 1 is no" in pw.run("audit", "verify", "--file", "log.jsonl").stderr
