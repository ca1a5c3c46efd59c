"""Every route by every role, by nobody, and by a token of another scope: one table."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from pilotwave_server.context import Context
from pilotwave_server.operators import people, sessions
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.service import issue
from pilotwave_server.operators.sessions import PersonSessions
from tests.server.dashboard.routes import all_routes
from tests.server.fleet_fixtures import only_sqlite
from tests.servers import RunningServer

pytestmark = only_sqlite

# Routes that ask for no account: what they ask for instead.
OPEN = {
    "GET /healthz": "nothing",
    "GET /livez": "nothing",
    "GET /readyz": "nothing",
    "GET /api/v1/openapi.json": "nothing",
    "GET /tuf/metadata/{file}": "nothing",
    "GET /tuf/targets/{path:path}": "nothing",
    "POST /device/v1/enrol": "a signature",
    "POST /device/v1/check-in": "a signature",
    "GET /device/v1/directive": "a device's token",
    "POST /device/v1/captures": "a device's token, then its signature",
    "POST /device/v1/diagnostics": "a device's token, then its signature",
    "POST /device/v1/updates": "a device's token, then its signature",
    "POST /device/v1/updates/begin": "a device's token, then its signature",
    "POST /device/v1/updates/pieces": "a device's token, then its signature",
    "POST /device/v1/declines": "a device's token, then its signature",
    "GET /device/v1/learning": "a device's token",
    "GET /device/v1/plans/{sha256}": "a device's token",
    "GET /device/v1/learning/{plan}/rounds/{number}/head": "a device's token",
    "POST /device/v1/masked": "a device's token, then its signature",
    "GET /device/v1/masked/{plan}": "a device's token",
    "GET /device/v1/links/blobs/{sha256}": "a device's token",
    "GET /device/v1/links/deltas/{from_sha256}/{to_sha256}": "a device's token",
    "GET /static/{tag}/{name:path}": "nothing",
    "GET /login": "nothing",
    "POST /login": "a password",
    "GET /login/code": "a session half way",
    "POST /login/code": "a code",
    "GET /login/oidc": "nothing",
    "GET /login/oidc/back": "a provider's code",
    "GET /login/link/{secret}": "nothing",
    "POST /login/link/{secret}": "the link",
    "POST /login/link/{secret}/oidc": "the link, and a provider's code",
    "POST /logout": "nothing",
    "POST /language": "nothing",
    "POST /theme": "nothing",
}
# The least role of every other route.
NEEDS = {
    "admin": """
        GET /api/v1/tokens|POST /api/v1/tokens|DELETE /api/v1/tokens/{token_id}
        GET /api/v1/people|POST /api/v1/people|PATCH /api/v1/people/{person}
        PUT /api/v1/people/{person}/oidc|DELETE /api/v1/people/{person}/oidc
        POST /api/v1/people/{person}/link|GET /api/v1/events/export
        POST /api/v1/models/{model}/versions/{version}/purge|POST /api/v1/trust/bootstrap
        POST /api/v1/models/{model}/versions/{version}/readmit
        POST /api/v1/trust/root|POST /api/v1/trust/targets
        POST /api/v1/trust/online-key|POST /api/v1/trust/director-key
        GET /api/v1/webhooks|POST /api/v1/webhooks|GET /api/v1/webhooks/{webhook}
        PATCH /api/v1/webhooks/{webhook}|DELETE /api/v1/webhooks/{webhook}
        POST /api/v1/webhooks/{webhook}/secret|POST /api/v1/webhooks/{webhook}/test
        GET /api/v1/webhooks/{webhook}/deliveries
        GET /api/v1/webhooks/{webhook}/deliveries/{number}
        POST /api/v1/webhooks/{webhook}/deliveries/{number}/again
        GET /settings/{section}|POST /settings/{section}/{action}
        GET /settings/webhooks/{webhook}
    """,
    "publisher": """
        POST /api/v1/blobs/missing|GET /api/v1/blobs/{sha256}/upload
        HEAD /api/v1/blobs/{sha256}/upload|PATCH /api/v1/blobs/{sha256}/upload
        POST /api/v1/models/{model}/metadata|GET /upload|DELETE /api/v1/blobs/{sha256}
    """,
    "operator": """
        POST /api/v1/models/{model}/versions/{version}/deny
        POST /api/v1/deltas/{from_sha256}/{to_sha256}/again
        DELETE /api/v1/models/{model}/versions/{version}/deny
        PATCH /api/v1/devices/{device}|POST /api/v1/devices/{device}/accept
        POST /api/v1/devices/{device}/reject|POST /api/v1/devices/{device}/revoke
        POST /api/v1/devices/{device}/decommission
        POST /api/v1/devices/{device}/settle|POST /api/v1/devices/bulk|POST /devices/bulk
        GET /api/v1/captures|GET /api/v1/captures/{number}|DELETE /api/v1/captures
        POST /api/v1/learning/experiments|POST /api/v1/learning/experiments/{experiment}/end
        POST /api/v1/learning/experiments/{experiment}/pause
        POST /api/v1/learning/experiments/{experiment}/resume
        POST /api/v1/learning/experiments/{experiment}/stop
        GET /api/v1/learning/experiments/{experiment}/head
        GET /api/v1/devices/{device}/diagnostics|POST /api/v1/devices/{device}/diagnostics
        GET /api/v1/devices/{device}/diagnostics/{number}
        DELETE /api/v1/devices/{device}/diagnostics/{number}
        GET /api/v1/enrolment-codes|POST /api/v1/enrolment-codes
        DELETE /api/v1/enrolment-codes/{code_id}
        POST /api/v1/groups|PUT /api/v1/groups/{group}|DELETE /api/v1/groups/{group}
        PUT /api/v1/groups/{group}/members/{device}
        DELETE /api/v1/groups/{group}/members/{device}
        PUT /api/v1/groups/{group}/baselines/{model}
        DELETE /api/v1/groups/{group}/baselines/{model}
        PUT /api/v1/groups/{group}/baselines/{model}/removal
        DELETE /api/v1/groups/{group}/baselines/{model}/removal
        PUT /api/v1/devices/{device}/models/{model}/removal
        DELETE /api/v1/devices/{device}/models/{model}/removal
        POST /api/v1/devices/{device}/models/{model}/pin
        POST /api/v1/devices/{device}/models/{model}/rollback
        DELETE /api/v1/devices/{device}/models/{model}/pin
        POST /api/v1/devices/{device}/models/{model}/retry
        POST /api/v1/rollouts|POST /api/v1/rollouts/preview
        POST /api/v1/rollouts/{rollout}/approve|POST /api/v1/rollouts/{rollout}/start
        POST /api/v1/rollouts/{rollout}/pause|POST /api/v1/rollouts/{rollout}/resume
        POST /api/v1/rollouts/{rollout}/next|POST /api/v1/rollouts/{rollout}/abort
        POST /api/v1/rollouts/{rollout}/rollback|POST /api/v1/rollouts/{rollout}/retry
        PUT /api/v1/policies/{policy}|PUT /api/v1/site-limits
        POST /learning/{experiment}/{step}
        GET /rollouts/new|POST /rollouts/new|POST /rollouts/preview
        POST /rollouts/{rollout}/{step}|POST /devices/{device}/do/{action}
        POST /devices/{device}/labels|POST /devices/{device}/models/{model}/{action}
        POST /models/{model}/{version}/{action}|POST /groups|POST /groups/{group}/{action}
        GET /policies/new|POST /policies/new|POST /attention/{verb}
        POST /api/v1/attention/acknowledge|POST /api/v1/attention/withdraw
    """,
    "viewer": """
        GET /metrics|GET /api/v1/status|GET /api/v1/whoami|GET /api/v1/events
        GET /api/v1/events/head|GET /api/v1/events/stream
        GET /device/v1/may-read/blobs/{sha256}
        GET /device/v1/may-read/deltas/{from_sha256}/{to_sha256}
        GET /deltas/{from_sha256}/{to_sha256}|HEAD /deltas/{from_sha256}/{to_sha256}
        GET /api/v1/deltas|GET /api/v1/deltas/{from_sha256}/{to_sha256}
        GET /api/v1/bytes|GET /api/v1/site-limits
        GET /api/v1/learning/experiments|GET /api/v1/learning/experiments/{experiment}
        GET /api/v1/learning/experiments/{experiment}/devices
        GET /api/v1/learning/experiments/{experiment}/groups
        GET /blobs/{sha256}|HEAD /blobs/{sha256}|GET /api/v1/models|GET /api/v1/models/{model}
        GET /api/v1/models/{model}/versions|GET /api/v1/models/{model}/distribution
        GET /api/v1/models/{model}/versions/{version}
        GET /api/v1/trust/server-keys|GET /api/v1/trust/metadata/{role}
        GET /api/v1/devices|GET /api/v1/devices/{device}|GET /api/v1/devices/{device}/events
        GET /api/v1/devices.csv|GET /api/v1/device-count|GET /api/v1/attention
        GET /api/v1/devices/{device}/history|GET /api/v1/devices/{device}/metrics
        GET /api/v1/devices/{device}/why
        GET /api/v1/groups|GET /api/v1/groups/{group}|GET /api/v1/groups/{group}/devices
        GET /api/v1/groups/{group}/baselines
        GET /api/v1/groups/{group}/baselines/{model}/removal
        GET /api/v1/devices/{device}/models/{model}/removal
        GET /api/v1/rollouts|GET /api/v1/rollouts/{rollout}|GET /api/v1/rollouts/{rollout}/preview
        GET /api/v1/rollouts/{rollout}/devices|GET /api/v1/rollouts/{rollout}/decisions
        GET /api/v1/policies|POST /api/v1/policies/check|GET /api/v1/policies/{policy}
        GET /api/v1/policies/{policy}/versions
        GET /learning|GET /learning/{experiment}|GET /learning/{experiment}/live
        GET /|GET /account|POST /account/{action}|GET /rollouts|GET /rollouts/{rollout}
        GET /rollouts/{rollout}/live|GET /rollouts/{rollout}/devices|GET /devices
        GET /rollouts/{rollout}/gates
        GET /devices/{device}|GET /devices/{device}/log|GET /devices/{device}/health|GET /over-time
        GET /models|GET /models/{model}
        GET /models/{model}/{version}/arrived|GET /models/{model}/{version}|GET /groups
        GET /groups/{group}|GET /policies|GET /policies/{policy}|GET /audit|GET /search
        GET /settings
    """,
}
TABLE = {
    route.strip(): role
    for role, text in NEEDS.items()
    for line in text.splitlines()
    for route in line.split("|")
    if route.strip()
}
FILLED = {
    "sha256": "0" * 64,
    "from_sha256": "0" * 64,
    "to_sha256": "1" * 64,
    "rollout": "r9999",
    "experiment": "9999",
    "code_id": "9999",
    "number": "9999",
    "section": "people",
    "action": "nothing",
    "step": "nothing",
    "version": "9.9.9",
}
# Answers without end.
ENDLESS = {"GET /api/v1/events/stream"}


def path_of(route: str) -> tuple[str, str]:
    method, template = route.split(" ", 1)
    path = re.sub(r"\{(\w+)[^}]*\}", lambda m: FILLED.get(m[1], "absent"), template)
    return method, path + ("?model=absent" if path.endswith("/why") else "")


def is_page(route: str) -> bool:
    path = route.split(" ", 1)[1]
    return not path.startswith(("/api/", "/device/", "/tuf/", "/blobs/", "/deltas/", "/metrics"))


def test_every_route_stands_in_the_table(server: RunningServer) -> None:
    found = {f"{method} {path}" for method, path in all_routes(server.app.fastapi)}
    assert found == set(TABLE) | set(OPEN)


def status(client: httpx.Client, route: str) -> int:
    method, path = path_of(route)
    # who may not do a thing hears so without a body; one that is not taken would be refused first
    some = b"" if path.startswith("/api/v1/") else b"{}"
    content = {} if method in ("GET", "HEAD", "DELETE") else {"content": some}
    headers = {"Content-Type": "application/json"} if content else {}
    if is_page(route) and content:
        content, headers = (
            {"content": b"x=y"},
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
    with client.stream(method, path, headers=headers, **content) as answer:
        return answer.status_code


def test_nobody_is_let_in_anywhere(client: httpx.Client) -> None:
    for route in TABLE:
        answer = status(client, route)
        assert answer == (303 if is_page(route) else 401), f"{route}: {answer}"


@pytest.fixture(params=[role.value for role in Role])
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


def test_each_role_may_do_what_the_table_says_by_token(
    server: RunningServer, role: Role, make_token: object
) -> None:
    token = make_token(role)  # type: ignore[operator]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        for route, needed in TABLE.items():
            if is_page(route) or route in ENDLESS:
                continue
            answer = status(client, route)
            if role.covers(Role(needed)):
                assert answer not in (401, 403), f"{role.value} {route}: {answer}"
            else:
                assert answer == 403, f"{role.value} {route}: {answer}"


@pytest.fixture
def person(server: RunningServer, context: Context, role: Role) -> Iterator[httpx.Client]:
    """Somebody of the role, signed in; forms carry the session's token."""
    with context.db.write() as session:
        row = people.create_person(
            session, name="ada", role=role, actor="server", now=context.clock()
        )
        cookie = sessions.start(session, row, now=context.clock())
    found = context.get(PersonSessions).find(cookie, now=context.clock())
    assert found is not None
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.cookies.set(sessions.COOKIE, cookie)
        client.headers["X-CSRF-Token"] = found.csrf
        yield client


def test_each_role_may_do_what_the_table_says_as_a_person(person: httpx.Client, role: Role) -> None:
    for route, needed in TABLE.items():
        if (
            route in ENDLESS
            or route == "GET /metrics"
            or "_sha256}" in route
            or "/blobs/{sha256}" in route
        ):
            continue
        answer = status(person, route)
        if role.covers(Role(needed)):
            assert answer not in (401, 403), f"{role.value} {route}: {answer}"
        else:
            assert answer == 403, f"{role.value} {route}: {answer}"


def test_a_person_without_the_sessions_token_changes_nothing(
    person: httpx.Client, role: Role
) -> None:
    del person.headers["X-CSRF-Token"]
    for route, needed in TABLE.items():
        changes = not route.startswith(("GET", "HEAD"))
        if changes and role.covers(Role(needed)) and "/upload" not in route:
            assert status(person, route) == 403, route


def test_a_token_of_another_scope_changes_nothing(server: RunningServer, context: Context) -> None:
    """Each change by tokens that may change another model, or another group, alone."""
    for limits in ({"models": ["other"]}, {"groups": ["others"]}):
        for kind in (Role.OPERATOR, Role.PUBLISHER):
            with context.db.write() as session:
                token = issue(
                    session,
                    name=f"{kind.value}-{next(iter(limits))}",
                    role=kind,
                    actor="server",
                    now=context.clock(),
                    **limits,  # type: ignore[arg-type]
                ).plaintext
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
                for route, needed in TABLE.items():
                    changes = not route.startswith(("GET", "HEAD"))
                    bytes_only = "/blobs/" in route
                    if not changes or is_page(route) or not kind.covers(Role(needed)):
                        continue
                    answer = status(client, route)
                    if route == "POST /api/v1/devices/bulk":
                        # whom it concerns stands in the body: devices/test_finding.py
                        assert answer == 422
                    elif bytes_only:
                        assert answer not in (401, 403), route
                    elif route in ("POST /api/v1/rollouts", "POST /api/v1/rollouts/preview"):
                        body = {"group": "ours", "model": "detector", "version": "1.0.0"}
                        path = route.split()[1]
                        reply = client.post(path, json={**body, "policy": "standard"})
                        assert reply.json()["code"] == "scope_forbids", reply.text
                    elif route == "POST /api/v1/learning/experiments":
                        body = {"group": "ours", "model": "detector", "plan": "autumn"}
                        reply = client.post(route.split()[1], json=body)
                        assert reply.json()["code"] == "scope_forbids", reply.text
                    else:
                        assert answer == 403, f"{limits} {route}: {answer}"
