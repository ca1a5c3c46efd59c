"""An operator token from its making to its end, over HTTP and on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event, select

from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.operators.authenticate import REMEMBER_S, OperatorTokens
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.tables import OperatorTokenRow

API = "/api/v1"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def make(admin: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = admin.post(f"{API}/tokens", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_new_token_works_and_its_secret_is_nowhere_in_the_database(
    admin: httpx.Client, client: httpx.Client, db: Database
) -> None:
    made = make(admin, name="ci", role="publisher")
    who = client.get(f"{API}/whoami", headers=bearer(made["token"]))
    assert who.json() == {
        "id": made["id"],
        "kind": "token",
        "name": "ci",
        "role": "publisher",
        "models": None,
        "groups": None,
    }
    secret = made["token"].split("_")[2]
    with db.read() as session:
        row = session.scalars(select(OperatorTokenRow).filter_by(name="ci")).one()
        kept = [str(getattr(row, column.key)) for column in OperatorTokenRow.__table__.columns]
    assert not any(secret in value for value in kept)


SECRETS: list[tuple[str, dict[str, Any]]] = [
    ("/tokens", {"name": "ci", "role": "viewer"}),
    ("/people", {"name": "ada", "role": "viewer"}),
    ("/people/ada/link", {}),
    ("/enrolment-codes", {}),
    ("/webhooks", {"name": "chat", "url": "https://example.org/hook"}),
    ("/webhooks/chat/secret", {}),
]


def test_no_cache_keeps_an_answer_that_holds_a_secret(admin: httpx.Client) -> None:
    for path, body in SECRETS:
        answer = admin.post(f"{API}{path}", json=body or None)
        assert answer.is_success, answer.text
        assert answer.headers["cache-control"] == "no-store", path


def test_the_list_shows_every_token_and_no_secret(admin: httpx.Client) -> None:
    made = [make(admin, name=f"t{n}", role="viewer") for n in range(3)]
    shown = admin.get(f"{API}/tokens").json()["items"]
    assert {m["id"] for m in made} < {row["id"] for row in shown}
    for row in shown:
        assert "token" not in row
        assert "secret_sha256" not in row


def test_a_revoked_token_is_dead_at_once(admin: httpx.Client, client: httpx.Client) -> None:
    made = make(admin, name="gone", role="viewer")
    headers = bearer(made["token"])
    assert client.get(f"{API}/whoami", headers=headers).status_code == 200
    assert admin.delete(f"{API}/tokens/{made['id']}").status_code == 204
    answer = client.get(f"{API}/whoami", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")
    assert admin.delete(f"{API}/tokens/{made['id']}").status_code == 204


def test_a_token_revoked_elsewhere_is_dead_within_seconds(
    context: Context, client: httpx.Client, make_token: Callable[..., str], clock: Any, db: Database
) -> None:
    token = make_token(Role.VIEWER)
    assert client.get(f"{API}/whoami", headers=bearer(token)).status_code == 200
    with db.write() as session:
        row = session.scalars(select(OperatorTokenRow)).one()
        row.revoked_at = clock()
    clock.advance(seconds=REMEMBER_S)
    assert client.get(f"{API}/whoami", headers=bearer(token)).status_code == 401


def test_a_token_dies_at_its_expiry_though_it_was_just_used(
    admin: httpx.Client, client: httpx.Client, clock: Any
) -> None:
    ends = clock() + timedelta(seconds=1)
    made = make(admin, name="short", role="viewer", expires_at=ends.isoformat())
    headers = bearer(made["token"])
    assert client.get(f"{API}/whoami", headers=headers).status_code == 200
    clock.advance(seconds=1)
    answer = client.get(f"{API}/whoami", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "token_missing"),
        ("Basic dXNlcjpwYXNz", "token_missing"),
        ("Bearer", "token_missing"),
        ("Bearer nonsense", "token_unknown"),
        ("Bearer pw_0000000000_" + "0" * 64, "token_unknown"),
        ("Bearer pw_" + "x" * 5000, "token_unknown"),
        (b"Bearer pw_\xff\xfe_\xc3\xa9", "token_unknown"),
    ],
)
def test_a_bad_token_is_401_and_says_which_kind(
    client: httpx.Client, header: str | bytes | None, code: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = client.get(f"{API}/whoami", headers=headers)  # type: ignore[arg-type]  # bytes on purpose
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wrong_secret_is_told_apart_from_an_unknown_id_by_nothing(
    admin: httpx.Client, client: httpx.Client
) -> None:
    made = make(admin, name="one", role="viewer")
    wrong = made["token"][:-1] + ("0" if made["token"][-1] != "0" else "1")
    unknown = f"pw_ffffffffff_{'0' * 64}"
    answers = [client.get(f"{API}/whoami", headers=bearer(t)) for t in (wrong, unknown)]
    assert answers[0].content == answers[1].content


def test_a_token_in_the_url_is_no_token(client: httpx.Client, viewer_token: str) -> None:
    answer = client.get(f"{API}/whoami", params={"token": viewer_token})
    assert answer.status_code == 401
    assert viewer_token not in answer.text


ALLOWED = [
    (Role.VIEWER, "GET", "/events", 200),
    (Role.VIEWER, "GET", "/tokens", 403),
    (Role.PUBLISHER, "GET", "/events", 200),
    (Role.PUBLISHER, "GET", "/tokens", 403),
    (Role.OPERATOR, "GET", "/events", 200),
    (Role.OPERATOR, "POST", "/tokens", 403),
    (Role.ADMIN, "GET", "/events", 200),
    (Role.ADMIN, "GET", "/tokens", 200),
]


@pytest.mark.parametrize(("role", "method", "path", "status"), ALLOWED)
def test_a_role_may_do_what_it_covers(
    client: httpx.Client,
    make_token: Callable[..., str],
    role: Role,
    method: str,
    path: str,
    status: int,
) -> None:
    body = {"name": "x", "role": "admin"} if method == "POST" else None
    headers = bearer(make_token(role))
    answer = client.request(method, f"{API}{path}", headers=headers, json=body)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "role_forbids"
        assert answer.json()["needed"] == "admin"


def test_publisher_and_operator_do_not_cover_one_another() -> None:
    assert not Role.PUBLISHER.covers(Role.OPERATOR)
    assert not Role.OPERATOR.covers(Role.PUBLISHER)
    assert all(Role.ADMIN.covers(role) and role.covers(Role.VIEWER) for role in Role)


def test_the_last_working_admin_token_cannot_be_revoked(admin: httpx.Client, clock: Any) -> None:
    own = admin.get(f"{API}/whoami").json()["id"]
    answer = admin.delete(f"{API}/tokens/{own}")
    assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    ends = (clock() + timedelta(seconds=10)).isoformat()
    make(admin, name="for a moment", role="admin", expires_at=ends)
    clock.advance(seconds=10)
    assert admin.delete(f"{API}/tokens/{own}").json()["code"] == "last_admin"
    make(admin, name="second", role="admin")
    assert admin.delete(f"{API}/tokens/{own}").status_code == 204


def test_a_name_is_given_once_and_an_expiry_lies_ahead(admin: httpx.Client, clock: Any) -> None:
    make(admin, name="ci", role="viewer")
    again = admin.post(f"{API}/tokens", json={"name": "ci", "role": "viewer"})
    assert (again.status_code, again.json()["code"]) == (409, "token_name_taken")
    past = {"name": "late", "role": "viewer", "expires_at": clock().isoformat()}
    assert admin.post(f"{API}/tokens", json=past).json()["code"] == "expiry_passed"
    assert admin.delete(f"{API}/tokens/nonsense").json()["code"] == "token_not_found"


def test_requests_with_a_token_seen_a_moment_ago_cost_no_query_and_no_write(
    viewer: httpx.Client, context: Context
) -> None:
    viewer.get(f"{API}/whoami")
    for worker in context.workers:  # some ask for news twice a second
        worker.stop()
    statements: list[str] = []

    def note(*args: Any) -> None:
        statements.append(args[2])

    for engine in (context.db.reader, context.db.writer):
        event.listen(engine, "before_cursor_execute", note)
    for _ in range(20):
        assert viewer.get(f"{API}/whoami").status_code == 200
    assert statements == []


def test_last_use_is_written_later_and_for_many_uses_at_once(
    viewer: httpx.Client, context: Context, db: Database, clock: Any
) -> None:
    for _ in range(3):
        clock.advance(seconds=1)
        viewer.get(f"{API}/whoami")
    with db.read() as session:
        assert session.scalars(select(OperatorTokenRow.last_used_at)).one() is None
    context.get(OperatorTokens).flush()
    with db.read() as session:
        assert session.scalars(select(OperatorTokenRow.last_used_at)).one() == clock()
