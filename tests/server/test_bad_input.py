"""Whatever is sent, the answer is a problem document that says what was expected, never a 5xx."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from pilotwave_server.app import create_app
from pilotwave_server.operators.roles import Role
from pilotwave_server.settings import Settings
from tests.conftest import KINDS, issue_token, new_database, token_client
from tests.databases import prepare_data_dir
from tests.servers import RunningServer, run_in_thread

API = "/api/v1"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One server for all: nothing that is tried here may leave a trace in it."""
    folder = tmp_path_factory.mktemp("server")
    with new_database(request.param, request, folder) as url:
        settings = prepare_data_dir(Settings(data_dir=folder, database_url=url))
        with run_in_thread(create_app(settings)) as running:
            yield running


@pytest.fixture(scope="module")
def admin(server: RunningServer) -> Iterator[httpx.Client]:
    token = issue_token(server.context.db, Role.ADMIN, now=server.context.clock())
    with token_client(server, token) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem document of an answer, checked for its form."""
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == answer.status_code
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    assert document["code"]
    return document


BODIES = [
    # what came, the status, the code, a word of the sentence
    (b"", 422, "invalid", "body"),
    (b"{", 422, "bad_json", "JSON"),
    (b"[]", 422, "invalid", "body"),
    (b"null", 422, "invalid", "body"),
    (b'"text"', 422, "invalid", "body"),
    (b"{}", 422, "invalid", "name"),
    (b'{"name":"a","role":"king"}', 422, "invalid", "role"),
    (b'{"name":5,"role":"viewer"}', 422, "invalid", "name"),
    (b'{"name":"a","role":["viewer"]}', 422, "invalid", "role"),
    (b'{"name":"","role":"viewer"}', 422, "invalid", "name"),
    (b'{"name":"' + b"a" * 65 + b'","role":"viewer"}', 422, "invalid", "name"),
    (b'{"name":"a","role":"viewer","extra":1}', 422, "invalid", "extra"),
    (b'{"name":"a","role":"viewer","expires_at":"soon"}', 422, "invalid", "expires_at"),
    (b'{"name":"a","role":"viewer","expires_at":"2030-01-01T00:00:00"}', 422, "invalid", "expires"),
    (b'{"name":"a","role":"viewer","expires_at":"0001-01-01T00:00:00+23:00"}', 422, "invalid", "U"),
    (b'{"name":"a","name":"b","role":"viewer"}', 422, "bad_json", "twice"),
    (b'{"name":NaN,"role":"viewer"}', 422, "bad_json", "number"),
    (b'{"name":1e999,"role":"viewer"}', 422, "bad_json", "finite"),
    (b'{"name":' + b"9" * 5000 + b"}", 422, "bad_json", "digits"),
    (b"[" * 100_000, 422, "bad_json", "nesting"),
    (b'{"name":"a\\u0000b","role":"viewer"}', 422, "bad_json", "NUL"),
    (b'{"name":"\\ud800","role":"viewer"}', 422, "bad_json", "surrogate"),
    (b'{"name":"\xff\xfe","role":"viewer"}', 422, "bad_json", "UTF-8"),
    (b'\xef\xbb\xbf{"name":"a","role":"viewer"}', 422, "bad_json", "JSON"),
    (b'{"name":"a\\u0007","role":"viewer"}', 422, "invalid", "printable"),
]


@pytest.mark.parametrize(("body", "status", "code", "word"), BODIES)
def test_a_bad_body_is_refused_with_a_sentence(
    admin: httpx.Client, body: bytes, status: int, code: str, word: str
) -> None:
    answer = admin.post(f"{API}/tokens", content=body, headers=JSON)
    found = problem(answer)
    assert (answer.status_code, found["code"]) == (status, code)
    assert word in found["detail"]


def test_wrong_fields_are_listed_by_path_and_nothing_sent_is_repeated(admin: httpx.Client) -> None:
    body = {"name": 5, "role": "hunter2-secret", "what": "hunter2-secret"}
    answer = admin.post(f"{API}/tokens", json=body)
    errors = problem(answer)["errors"]
    assert {e["path"] for e in errors} == {"body.name", "body.role", "body.what"}
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "nonsense", ""])
def test_a_body_that_is_not_json_is_refused(admin: httpx.Client, kind: str) -> None:
    body = b'{"name":"a","role":"viewer"}'
    answer = admin.post(f"{API}/tokens", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 422
    problem(answer)


def test_a_body_that_announces_to_be_huge_is_refused_before_it_is_read(
    admin: httpx.Client, server: RunningServer
) -> None:
    limit = server.context.settings.max_body_bytes
    for size in (limit + 1, limit * 3):
        answer = admin.post(f"{API}/tokens", content=b"x" * size, headers=JSON)
        assert answer.status_code == 413
        assert problem(answer)["max_bytes"] == limit
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port or 0), timeout=10) as raw:
        token = admin.headers["Authorization"]
        head = f"POST {API}/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        raw.sendall(f"{head}Content-Length: {10**15}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_that_turns_out_huge_is_refused_when_it_does(admin: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    answer = admin.post(f"{API}/tokens", content=pieces(), headers=JSON)
    assert (answer.status_code, problem(answer)["code"]) == (413, "body_too_large")
    assert admin.get(f"{API}/whoami").status_code == 200


URLS = [
    ("GET", "/nothing", 404, "no_such_route"),
    ("GET", f"{API}/nothing", 404, "no_such_route"),
    ("GET", f"{API}/whoami/", 404, "no_such_route"),
    ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404, "no_such_route"),
    ("DELETE", f"{API}/whoami", 405, "method_not_allowed"),
    ("POST", "/healthz", 405, "method_not_allowed"),
    ("PROPFIND", f"{API}/whoami", 405, "method_not_allowed"),
    ("GET", f"{API}/events?object=a%00b", 422, "bad_url"),
    ("GET", f"{API}/events%00", 422, "bad_url"),
    ("GET", f"{API}/events?limit=0", 422, "invalid"),
    ("GET", f"{API}/events?limit=501", 422, "invalid"),
    ("GET", f"{API}/events?limit=many", 422, "invalid"),
    ("GET", f"{API}/events?limit=99999999999999999999999", 422, "invalid"),
    ("GET", f"{API}/events?since=yesterday", 422, "invalid"),
    ("GET", f"{API}/events?since=9999-12-31T23:59:59-23:59", 422, "invalid"),
    ("GET", f"{API}/events?object=" + "a" * 301, 422, "invalid"),
    ("DELETE", f"{API}/tokens/%ff%fe", 404, "token_not_found"),
    ("DELETE", f"{API}/tokens/%ed%a0%80", 404, "token_not_found"),
]


@pytest.mark.parametrize(("method", "url", "status", "code"), URLS)
def test_a_bad_url_is_refused_as_a_problem(
    admin: httpx.Client, method: str, url: str, status: int, code: str
) -> None:
    answer = admin.request(method, url)
    assert (answer.status_code, problem(answer)["code"]) == (status, code)


CURSORS = [
    "",
    "x",
    "!!!!",
    "é",
    "bnVsbA",  # null
    "WzEsMl0",  # [1,2]: too many parts
    "WyJhIl0",  # ["a"]: a word for a number
    "W3RydWVd",  # [true]
    "WzEuNV0",  # [1.5]
    "W1tdXQ",  # [[]]
    "WzFlOTk5XQ",  # [1e999]
    "Wzk5OTk5OTk5OTk5OTk5OTk5OTk5XQ",  # [99999999999999999999]
    "W" * 1024,
]


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_that_no_list_gave_out_is_refused(admin: httpx.Client, cursor: str) -> None:
    answer = admin.get(f"{API}/events", params={"cursor": cursor})
    assert (answer.status_code, problem(answer)["code"]) == (422, "bad_cursor")


def test_a_cursor_of_text_keys_refuses_what_no_database_could_compare(admin: httpx.Client) -> None:
    for raw in ('["a\\u0000b"]', '["\\ud800"]', "[5]"):
        cursor = base64.urlsafe_b64encode(raw.encode()).decode()
        answer = admin.get(f"{API}/tokens", params={"cursor": cursor})
        assert (answer.status_code, problem(answer)["code"]) == (422, "bad_cursor")


def test_the_refused_method_answer_lists_the_allowed_ones(client: httpx.Client) -> None:
    assert "GET" in client.delete(f"{API}/whoami").headers["allow"]


def test_every_operation_of_the_document_declares_its_problems(client: httpx.Client) -> None:
    document = client.get(f"{API}/openapi.json").json()
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation.get("summary"), where
            assert operation.get("tags"), where
            declared = operation["responses"]
            assert "503" in declared, where
            if {"operatorToken": []} in operation.get("security", []):
                assert {"401", "403"} <= set(declared), where
            if "requestBody" in operation:
                assert {"413", "422"} <= set(declared), where
            for status, answer in declared.items():
                if int(status) >= 400 and status != "416":
                    assert "application/problem+json" in answer.get("content", {}), where
    for name, schema in document["components"]["schemas"].items():
        assert "$defs" not in schema, name


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_content_type_is_told_the_header(admin: httpx.Client, kind: str) -> None:
    body = b'{"name": "site-b", "selector": "site=b"}'
    answer = admin.post(f"{API}/groups", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 422
    said = problem(answer)["detail"]
    assert f"expected the header Content-Type: application/json; got {kind or 'none'}" in said


@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"x"'])
def test_a_body_that_is_no_object_is_told_so(admin: httpx.Client, body: bytes) -> None:
    answer = admin.post(f"{API}/groups", content=body, headers=JSON)
    assert answer.status_code == 422
    assert "body: expected a JSON object" in problem(answer)["detail"]
