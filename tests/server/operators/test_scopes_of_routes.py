"""Every route of the API that changes something: whose role it needs, and what it changes.

A token of limited scope is judged by the second: one of a model, of a group, or of both.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials

from pilotwave_server.deps import SAFE, get_actor
from pilotwave_server.devices.tables import PRIME
from pilotwave_server.learning.tables import ExperimentRow
from pilotwave_server.operators import service
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.registry.tables import PlanRow
from pilotwave_server.routing import API
from pilotwave_server.scope import ScopeForbids
from tests.conftest import FakeClock
from tests.server.dashboard.routes import routes_of
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.servers import RunningServer

CHANGES = {
    # Nothing but bytes, which are worth nothing until a version lists them.
    "publisher, bytes": """
        POST /blobs/missing|PATCH /blobs/{sha256}/upload|DELETE /blobs/{sha256}
    """,
    "publisher, model": "POST /models/{model}/metadata",
    "operator, model": """
        POST /models/{model}/versions/{version}/deny|DELETE /models/{model}/versions/{version}/deny
    """,
    # What a model's devices of one group run.
    "operator, group": """
        PUT /groups/{group}/baselines/{model}|DELETE /groups/{group}/baselines/{model}
        PUT /groups/{group}/baselines/{model}/removal
        DELETE /groups/{group}/baselines/{model}/removal
    """,
    "operator, device": """
        POST /devices/{device}/models/{model}/pin|DELETE /devices/{device}/models/{model}/pin
        POST /devices/{device}/models/{model}/rollback
        POST /devices/{device}/models/{model}/retry
        PUT /devices/{device}/models/{model}/removal
        DELETE /devices/{device}/models/{model}/removal
    """,
    "operator, rollout": """
        POST /rollouts/{rollout}/approve|POST /rollouts/{rollout}/start
        POST /rollouts/{rollout}/pause|POST /rollouts/{rollout}/resume
        POST /rollouts/{rollout}/next|POST /rollouts/{rollout}/abort
        POST /rollouts/{rollout}/rollback|POST /rollouts/{rollout}/retry
    """,
    "operator, experiment": """
        POST /learning/experiments/{experiment}/end
        POST /learning/experiments/{experiment}/pause
        POST /learning/experiments/{experiment}/resume
        POST /learning/experiments/{experiment}/stop
    """,
    # The route asks by itself: below, and devices/test_finding.py for the last.
    "operator, named in the body": """
        POST /rollouts|POST /rollouts/preview|POST /devices/bulk|POST /learning/experiments
    """,
    # Who is in the fleet, and who is in a group: it would widen the token's own limits.
    "operator, fleet": """
        PATCH /devices/{device}|POST /devices/{device}/accept|POST /devices/{device}/reject
        POST /devices/{device}/revoke|POST /devices/{device}/decommission
        POST /devices/{device}/diagnostics
        DELETE /devices/{device}/diagnostics/{number}
        DELETE /captures
        POST /devices/{device}/settle
        POST /enrolment-codes|DELETE /enrolment-codes/{code_id}
        POST /groups|PUT /groups/{group}|DELETE /groups/{group}
        PUT /groups/{group}/members/{device}|DELETE /groups/{group}/members/{device}
        PUT /policies/{policy}|PUT /site-limits|POST /deltas/{from_sha256}/{to_sha256}/again
        POST /attention/acknowledge|POST /attention/withdraw
    """,
    "viewer, fleet": "POST /policies/check",
    # No admin's token is limited.
    "admin, fleet": """
        POST /tokens|DELETE /tokens/{token_id}|POST /people|PATCH /people/{person}
        PUT /people/{person}/oidc|DELETE /people/{person}/oidc|POST /people/{person}/link
        POST /trust/bootstrap|POST /trust/root|POST /trust/targets
        POST /trust/online-key|POST /trust/director-key
        POST /models/{model}/versions/{version}/purge
        POST /models/{model}/versions/{version}/readmit
        POST /webhooks|PATCH /webhooks/{webhook}|DELETE /webhooks/{webhook}
        POST /webhooks/{webhook}/secret|POST /webhooks/{webhook}/test
        POST /webhooks/{webhook}/deliveries/{number}/again
    """,
}
TABLE = {
    route.strip(): tuple(declared.split(", "))
    for declared, text in CHANGES.items()
    for line in text.splitlines()
    for route in line.split("|")
    if route.strip()
}
NAMED_IN_THE_PATH = {
    "model": {"model"},
    "group": {"group", "model"},
    "device": {"device", "model"},
    "rollout": {"rollout"},
    "experiment": {"experiment"},
}
PATHS = {
    "model": "detector",
    "group": "line-a",
    "device": "cam-1",
    "rollout": "r1",
    "experiment": "1",
    "sha256": "0" * 64,
    "from_sha256": "0" * 64,
    "to_sha256": "1" * 64,
    "version": "9.9.9",
}
OURS: dict[str, Any] = {"model": "detector", "group": "line-a"}
LIMITS = [
    {"models": ["detector"]},
    {"groups": ["line-a"]},
    {"models": ["detector"], "groups": ["line-a"]},
    {"models": ["other"]},
    {"groups": ["others"]},
    {"models": ["detector"], "groups": ["others"]},
    {"models": ["other"], "groups": ["line-a"]},
]


def writing(fastapi: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    for route in routes_of(fastapi):
        if route.path.startswith(API):
            for method in route.methods - set(SAFE):
                yield f"{method} {route.path.removeprefix(API)}", route


def declared(route: APIRoute) -> list[tuple[str, str]]:
    """The role and the resource of each caller that a route's signature asks for."""
    calls = [needed.call for needed in route.dependant.dependencies]
    found = [call.declares for call in calls if hasattr(call, "declares")]
    return [(role.value, resource.name) for role, resource in found]


@only_sqlite
def test_every_route_that_changes_something_says_who_may_call(server: RunningServer) -> None:
    found = {name: declared(route) for name, route in writing(server.app.fastapi)}
    assert found == {name: [says] for name, says in TABLE.items()}


def test_a_path_names_what_its_route_is_judged_by() -> None:
    for name, (_, resource) in TABLE.items():
        names = set(re.findall(r"\{(\w+)", name))
        assert names >= NAMED_IN_THE_PATH.get(resource, set()), name


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_declares_no_caller_is_only_read_by_a_limited_token(
    method: str, clock: FakeClock
) -> None:
    token = Actor("1", "night", Role.OPERATOR, groups=frozenset({"line-a"}))
    tokens = SimpleNamespace(recall=lambda secret, now: token)
    context: Any = SimpleNamespace(get=lambda kind: tokens)
    request = Request({"type": "http", "method": method, "headers": []})
    given = HTTPAuthorizationCredentials(scheme="Bearer", credentials="pw_…")
    with nullcontext() if method in SAFE else pytest.raises(ScopeForbids):
        assert asyncio.run(get_actor(request, context, given, clock())) is token


def may(resource: str, limits: dict[str, list[str]]) -> bool:
    """Whether a token of these limits may change what belongs to detector and line-a."""
    model = OURS["model"] in limits.get("models", [OURS["model"]])
    group = OURS["group"] in limits.get("groups", [OURS["group"]])
    return {
        "bytes": True,
        "fleet": False,
        "model": model and "groups" not in limits,
        "group": model and group,
        "device": model and group,
        "rollout": model and group,
        "experiment": model and group,
    }[resource]


@only_sqlite
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_a_limited_token_changes_what_its_limits_take_in(
    server: RunningServer, fleet: Fleet, limits: dict[str, list[str]]
) -> None:
    fleet.device("cam-1", site="a")
    fleet.group("line-a", "site=a")
    wish = {**OURS, "version": "1.1.0", "policy": "standard"}
    assert fleet.operator.post(f"{API}/rollouts", json=wish).json()["id"] == "r1"
    add_experiment(fleet)
    for role in (Role.PUBLISHER, Role.OPERATOR):
        with limited(server, fleet, role, limits) as client:
            for name, (needed, resource) in TABLE.items():
                if not role.covers(Role(needed)) or resource == "named in the body":
                    continue
                forbidden = send(client, name) == "scope_forbids"
                assert forbidden is not may(resource, limits), name
            if role is Role.OPERATOR:
                experiment = {**OURS, "plan": "absent"}
                for path, body in (
                    ("/rollouts", {**wish, "version": "9.9.9"}),
                    ("/rollouts/preview", {**wish, "version": "9.9.9"}),
                    ("/learning/experiments", experiment),
                ):
                    answer = client.post(f"{API}{path}", json=body)
                    forbidden = answer.json()["code"] == "scope_forbids"
                    assert forbidden is not may("rollout", limits), path


def add_experiment(fleet: Fleet) -> None:
    """The first experiment, of detector in line-a; its plan is none that anybody could read."""
    now = fleet.context.clock()
    plan = PlanRow(
        model="detector", name="p", sha256="0" * 64, content=b"", published_at=now, published_by="x"
    )
    salt = {"multiplier": 1, "offset": 0, "threshold": PRIME}
    with fleet.context.db.write() as session:
        session.add(plan)
        session.flush()
        session.add(
            ExperimentRow(
                plan_id=plan.id, plan="p", plan_sha256="0" * 64, group="line-a", policy={},
                state="running", opened_at=now, opened_by="x", wave_opened_at=now,
                model="detector", **salt,
            )
        )  # fmt: skip


def limited(
    server: RunningServer, fleet: Fleet, role: Role, limits: dict[str, Any]
) -> httpx.Client:
    with fleet.context.db.write() as session:
        now = fleet.context.clock()
        made = service.issue(session, name=role.value, role=role, actor="server", now=now, **limits)
    headers = {"Authorization": f"Bearer {made.plaintext}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def send(client: httpx.Client, name: str) -> str | None:
    """The code of what a route answers to a request without a body: by then it knows who asks."""
    method, template = name.split(" ", 1)
    path = re.sub(r"\{(\w+)\}", lambda found: PATHS.get(found[1], "absent"), template)
    answer = client.request(method, f"{API}{path}")
    return str(answer.json().get("code")) if answer.status_code >= 400 else None
