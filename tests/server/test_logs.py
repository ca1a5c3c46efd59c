"""The server's log, and the id that ties its lines to an answer."""

from __future__ import annotations

import json
import re
from datetime import datetime

import httpx
import pytest

from pilotwave_server.logs import is_structured
from pilotwave_server.settings import Settings
from tests.conftest import ServerFactory


def test_lines_are_json_and_carry_the_answer_s_id(server_factory: ServerFactory) -> None:
    server = server_factory(log_format="json", log_level="debug", access_log=True)
    answers = [httpx.get(f"{server.url}/readyz") for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", found) for found in ids)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    for line in lines:
        assert {"at", "level", "logger", "message"} <= set(line)
        assert datetime.fromisoformat(line["at"]).tzinfo is not None
    asked = {line["request"] for line in lines if "/readyz" in line["message"]}
    assert asked == set(ids)


@pytest.mark.parametrize(
    ("proxies", "given", "taken"),
    [
        ("127.0.0.1", "from-the-proxy.1", True),
        # anybody may send the header, who is no proxy
        ("", "from-the-proxy.1", False),
        # it would end up in the log
        ("127.0.0.1", "x" * 65, False),
        ("127.0.0.1", 'a" "b"="c" level="error', False),
        ("127.0.0.1", "short", False),
    ],
)
def test_a_trusted_proxy_may_name_the_request(
    server_factory: ServerFactory, proxies: str, given: str, taken: bool
) -> None:
    server = server_factory(trusted_proxies=proxies)
    answer = httpx.get(f"{server.url}/nowhere", headers={"X-Request-Id": given})
    assert answer.status_code == 404
    assert (answer.headers["x-request-id"] == given) is taken


@pytest.mark.parametrize(
    ("asked", "environment", "structured"),
    [
        ("auto", {}, False),
        ("auto", {"INVOCATION_ID": "1"}, True),
        ("auto", {"JOURNAL_STREAM": "8:1"}, True),
        ("text", {"INVOCATION_ID": "1"}, False),
        ("json", {}, True),
    ],
)
def test_the_journal_gets_json(asked: str, environment: dict[str, str], structured: bool) -> None:
    settings = Settings(log_format=asked)  # type: ignore[arg-type]  # one of the three
    assert is_structured(settings, environment) is structured


def test_lines_for_people_name_the_request(server_factory: ServerFactory) -> None:
    server = server_factory(access_log=True, log_format="text")
    found = httpx.get(f"{server.url}/readyz").headers["x-request-id"]
    assert f"(request {found})" in server.log.read_text()
