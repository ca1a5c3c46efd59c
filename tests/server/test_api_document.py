"""The OpenAPI document holds for every route: names are unique, errors declared, nothing loose."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pilotwave_server.fields import ApiReply, ApiRequest
from pilotwave_server.routing import API
from tests.server.fleet_fixtures import fleet, only_sqlite, published

__all__ = ["fleet", "published"]


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{API}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in document["paths"].items():
        for method, operation in found.items():
            yield method, path, operation


def twice(names: list[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def subclasses(kind: type) -> Iterator[type]:
    for found in kind.__subclasses__():
        yield found
        yield from subclasses(found)


@only_sqlite
def test_schemas_operations_and_classes_have_names_of_their_own(document: dict[str, Any]) -> None:
    """FastAPI tells two classes of one name apart by their modules, and generators drop one."""
    assert twice([str(operation["operationId"]) for _, _, operation in operations(document)]) == []
    schemas = document["components"]["schemas"]
    assert [name for name in schemas if "pilotwave" in name or "__" in name] == []
    assert twice([schema.get("title", name) for name, schema in schemas.items()]) == []
    views = {kind for base in (ApiReply, ApiRequest) for kind in subclasses(base)}
    ours = [k.__name__ for k in views if k.__module__.startswith("pilotwave_server.")]
    assert twice([name for name in ours if "[" not in name]) == []


@only_sqlite
def test_every_request_document_refuses_unknown_fields(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if reference and path.startswith(API):
            name = reference.rpartition("/")[2]
            assert schemas[name]["additionalProperties"] is False, f"{method} {path}"


@only_sqlite
def test_every_operation_of_the_api_declares_what_any_may_answer(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if path.startswith(API):
            said = operation["responses"]
            assert {"401", "403", "422", "429", "500", "503"} <= said.keys(), f"{method} {path}"
            for code in ("invalid", "query_unknown", "bad_json"):
                assert f"`{code}`" in said["422"]["description"], f"{method} {path}"
            if method not in ("get", "head"):
                assert "`clash`" in said["409"]["description"], f"{method} {path}"


@only_sqlite
def test_every_operation_of_the_api_refuses_a_query_parameter_that_it_does_not_know(
    admin: httpx.Client, document: dict[str, Any]
) -> None:
    tried = 0
    for method, template, _ in [*operations(document), ("get", f"{API}/openapi.json", {})]:
        if template.startswith(API) and method != "head":
            path = re.sub(r"\{[^}]*\}", "x", template)
            answer = admin.request(method, f"{path}?limmit=1")
            assert answer.status_code == 422, f"{method} {path}: {answer.text}"
            assert answer.json()["code"] == "query_unknown", f"{method} {path}"
            assert "'limmit'" in answer.json()["detail"]
            tried += 1
    assert tried > 80


@only_sqlite
def test_every_operation_of_the_api_refuses_a_body_that_it_does_not_take(
    admin: httpx.Client, document: dict[str, Any]
) -> None:
    """It was passed over in silence: a pause with `{"until": …}` would have paused for ever."""
    tried = 0
    for method, template, operation in operations(document):
        takes, said = "requestBody" in operation, operation["responses"].get("422", {})
        if not template.startswith(API) or method == "head":
            continue
        assert ("`body_not_taken`" in said["description"]) != takes, f"{method} {template}"
        if takes:
            continue
        path = re.sub(r"\{[^}]*\}", "x", template)
        for body in ({"json": {}}, {"content": b"x"}, {"content": iter([b"", b"x"])}):
            answer = admin.request(method, path, **body)
            found = (answer.status_code, answer.json()["code"])
            assert found == (422, "body_not_taken"), f"{method} {path}: {answer.text}"
        tried += 1
    assert tried > 60


@only_sqlite
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "a"}])
def test_an_empty_body_is_none(admin: httpx.Client, key: dict[str, str]) -> None:
    path = f"{API}/devices/nobody/accept"
    empty: list[dict[str, Any]] = [
        {},
        {"content": b""},
        {"content": b"", "headers": {"Content-Type": "application/json"}},
        {"headers": {"Content-Length": "0"}},
        {"content": iter([b""])},  # in chunks, of which the first ends it
    ]
    for number, body in enumerate(empty):
        given = {**body.get("headers", {}), **{k: f"{v}{number}" for k, v in key.items()}}
        answer = admin.post(path, **{**body, "headers": given})
        assert answer.json()["code"] == "device_unknown", f"{body}: {answer.text}"
    answer = admin.post(path, json={"a": 1}, headers=key)
    assert answer.json()["code"] == "body_not_taken"
    admin.request("GET", f"{API}/devices", content=b"").raise_for_status()


@only_sqlite
def test_a_stranger_is_told_to_sign_in_whatever_the_body(client: httpx.Client) -> None:
    answer = client.post(f"{API}/devices/nobody/accept", json={"a": 1})
    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")


@only_sqlite
def test_a_query_parameter_that_is_no_list_is_given_once(
    admin: httpx.Client, document: dict[str, Any]
) -> None:
    """The last one was taken: a device list filtered by one state of two that were asked for."""
    tried = 0
    for method, template, operation in operations(document):
        given = [p for p in operation.get("parameters", []) if p["in"] == "query"]
        for parameter in given if template.startswith(API) else []:
            name, is_list = parameter["name"], "'array'" in str(parameter["schema"])
            path = re.sub(r"\{[^}]*\}", "x", template)
            answer = admin.request(method, f"{path}?{name}=1&{name}=1")
            refused = answer.status_code == 422 and answer.json()["code"] == "query_unknown"
            assert refused != is_list, f"{method} {path} {name}: {answer.text}"
            tried += 1
    assert tried > 40


@only_sqlite
@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "limits=5",
            "known: cursor, group, limit, model, name, reason, selector, sort, standing, state",
        ),
        ("limit=5&limit=6", "expected limit once; it was given 2 times"),
        ("Limit=5", "there is no query parameter 'Limit' here"),
        ("=5", "there is no query parameter '' here"),
        ("%F0%9F%92%A3=5", "there is no query parameter '\\U0001f4a3' here"),
    ],
)
def test_the_sentence_names_the_parameters_that_there_are(
    viewer: httpx.Client, query: str, said: str
) -> None:
    answer = viewer.get(f"{API}/devices?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "query_unknown")
    assert said in answer.json()["detail"]


@only_sqlite
def test_a_parameter_that_is_a_list_may_be_repeated(viewer: httpx.Client) -> None:
    query = "type=rollout.*&type=device.failed&after=9.9"
    answer = viewer.get(f"{API}/events/stream?{query}")
    assert answer.json()["code"] == "bad_event_cursor"


@only_sqlite
def test_paths_of_devices_and_caches_take_parameters_that_they_do_not_know(
    client: httpx.Client, fleet: Any
) -> None:
    assert client.get("/tuf/metadata/timestamp.json?cache=no").status_code == 200
    assert client.get("/healthz?probe=lb").status_code == 200


@only_sqlite
def test_a_post_whose_body_needs_nothing_may_come_without_one(
    operator: httpx.Client, document: dict[str, Any], fleet: Any
) -> None:
    for body in ({}, {"content": b""}, {"json": {}}, {"content": b"", "headers": JSON}):
        answer = operator.post(f"{API}/enrolment-codes", **body)
        assert answer.status_code == 201, answer.text
    schemas = document["components"]["schemas"]
    for method, path, operation in operations(document):
        body_of = operation.get("requestBody", {})
        content = body_of.get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if method == "post" and path.startswith(API) and name:
            needs = bool(schemas[name].get("required"))
            assert bool(body_of.get("required")) == needs, path


JSON = {"Content-Type": "application/json"}


@only_sqlite
def test_a_body_in_another_form_is_not_passed_over(operator: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": kind}
        answer = operator.post(f"{API}/enrolment-codes", content=b'{"count": 3}', headers=headers)
        assert answer.status_code == 422, answer.text


@only_sqlite
def test_the_document_is_made_once(client: httpx.Client) -> None:
    first = client.get(f"{API}/openapi.json")
    again = [client.get(f"{API}/openapi.json") for _ in range(20)]
    assert {answer.content for answer in again} == {first.content}
    assert max(answer.elapsed.total_seconds() for answer in again) < 0.5
