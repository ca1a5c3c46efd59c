"""A request with an Idempotency-Key is done once, however often and wherever it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from pilotwave_server.app import create_app
from pilotwave_server.context import Context
from pilotwave_server.idempotency.tables import IdempotencyRow
from pilotwave_server.settings import Settings
from tests.conftest import FakeClock
from tests.servers import run_in_thread

API = "/api/v1"
GROUP = {"name": "berlin", "selector": "site=berlin"}


def post(client: httpx.Client, key: str, path: str = "groups", **body: Any) -> httpx.Response:
    return client.post(f"{API}/{path}", json=body, headers={"Idempotency-Key": key})


def groups(client: httpx.Client) -> list[str]:
    return [group["name"] for group in client.get(f"{API}/groups").json()["items"]]


def test_the_same_request_gets_the_same_answer_and_is_done_once(operator: httpx.Client) -> None:
    first = post(operator, "k1", **GROUP)
    again = post(operator, "k1", **GROUP)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert groups(operator) == ["berlin"]
    assert post(operator, "k2", **GROUP).status_code == 409, "without the key it is taken"


def test_a_key_with_another_request_is_refused(operator: httpx.Client) -> None:
    post(operator, "k1", **GROUP)
    answer = post(operator, "k1", name="paris")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    answer = operator.post(f"{API}/enrolment-codes", headers={"Idempotency-Key": "k1"})
    assert answer.json()["code"] == "idempotency_key_reused"


def test_a_refused_request_may_be_sent_again(operator: httpx.Client) -> None:
    wish = {"model": "m", "version": "1.0.0", "group": "berlin", "policy": "standard"}
    assert post(operator, "k1", "rollouts", **wish).status_code == 404
    post(operator, "k2", **GROUP)
    assert post(operator, "k1", **{**GROUP, "name": "paris"}).status_code == 201


def test_a_key_belongs_to_the_token_that_sent_it(
    operator: httpx.Client, admin: httpx.Client
) -> None:
    assert post(operator, "k1", **GROUP).status_code == 201
    assert post(admin, "k1", name="paris").status_code == 201


def test_many_at_once_do_it_once(operator: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(operator, "k1", "enrolment-codes"), range(8)))
    made = {a.json()["items"][0]["code"] for a in answers if a.status_code == 201}
    assert len(made) == 1
    assert {a.status_code for a in answers} <= {201, 409}
    codes = {a.json()["code"] for a in answers if a.status_code == 409}
    assert codes <= {"request_in_progress"}
    assert len(operator.get(f"{API}/enrolment-codes").json()["items"]) == 1


def test_secrets_in_answers_are_stored_sealed_and_repeated(
    admin: httpx.Client, context: Context
) -> None:
    key = "no ciphertext spells this by chance"
    first = post(admin, key, "tokens", name="ci", role="publisher")
    secret = first.json()["token"]
    assert post(admin, key, "tokens", name="ci", role="publisher").json()["token"] == secret
    with context.db.read() as session:
        rows = list(session.scalars(select(IdempotencyRow)))
    assert rows
    stored = "".join(f"{row.name}{row.fingerprint}{row.answer}" for row in rows)
    assert secret not in stored
    assert key not in stored


def test_another_server_process_repeats_the_answer_too(
    operator: httpx.Client, settings: Settings, clock: FakeClock
) -> None:
    first = post(operator, "k1", **GROUP)
    with run_in_thread(create_app(settings, clock=clock)) as other:
        headers = {"Authorization": operator.headers["Authorization"], "Idempotency-Key": "k1"}
        again = httpx.post(f"{other.url}{API}/groups", json=GROUP, headers=headers, timeout=30)
    assert (again.status_code, again.json()) == (201, first.json())


def test_keys_are_forgotten_after_a_day(
    operator: httpx.Client, context: Context, clock: FakeClock
) -> None:
    post(operator, "k1", **GROUP)
    clock.advance(hours=25)
    post(operator, "k2", name="paris")
    with context.db.read() as session:
        assert len(list(session.scalars(select(IdempotencyRow)))) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_none_is_refused(operator: httpx.Client, key: str) -> None:
    answer = post(operator, key, **GROUP)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_idempotency_key")
    assert groups(operator) == []


def test_strangers_leave_nothing_behind(client: httpx.Client, context: Context) -> None:
    for token in ("", "Bearer pw_nobody_x", "Basic eA=="):
        headers = {"Idempotency-Key": "k1", **({"Authorization": token} if token else {})}
        assert client.post(f"{API}/groups", json=GROUP, headers=headers).status_code == 401
    with context.db.read() as session:
        assert list(session.scalars(select(IdempotencyRow))) == []
