"""Each type of event is in one list, and a type that is not there is refused where it is asked."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import httpx
import pytest

import pilotwave_server
from pilotwave_server.events.types import EVENT_TYPES, VERBS
from tests.server.fleet_fixtures import only_sqlite

SOURCE = Path(pilotwave_server.__file__).parent
COMPOSED = {f"trust.{what}" for what in ("root", "targets", "director_key", "online_key")}
UNKNOWN = ["rollout.rolledback", "rollouts.*", "device.fail", "nothing.at_all", "audit.*"]


def verbs_in(tree: ast.AST) -> set[str]:
    """What looks like a verb of the audit log; of a rollout's steps only the action is written."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        actions: list[ast.expr | None] = []
        if isinstance(node, ast.keyword) and node.arg == "action":
            actions = [node.value]
        if isinstance(node, ast.FunctionDef):
            named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            actions = [default for arg, default in named if arg.arg == "action"]
        for action in actions:
            if isinstance(action, ast.Constant):
                found.add(f"rollout.{action.value}")
    families = {verb.partition(".")[0] for verb in VERBS}
    return {
        word
        for word in found
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", word)
        and word.partition(".")[0] in families
        and not word.endswith(".html")
    }


def test_the_list_of_types_is_what_the_code_records() -> None:
    files = [file for file in SOURCE.rglob("*.py") if file.name != "types.py"]
    written = {verb for file in files for verb in verbs_in(ast.parse(file.read_text()))}
    assert written - EVENT_TYPES == set(), "add it to events/types.py"
    assert VERBS - written - COMPOSED == set(), "remove it from events/types.py"


@only_sqlite
@pytest.mark.parametrize("wrong", UNKNOWN)
def test_a_type_that_does_not_exist_is_refused(admin: httpx.Client, wrong: str) -> None:
    webhook = {"name": "ops", "url": "https://example.com/x", "types": ["rollout.*"]}
    made = admin.post("/api/v1/webhooks", json={**webhook, "types": ["rollout.pause", wrong]})
    assert admin.post("/api/v1/webhooks", json=webhook).status_code == 201
    changed = admin.patch("/api/v1/webhooks/ops", json={"types": [wrong]})
    followed = admin.get("/api/v1/events/stream", params={"type": wrong})
    for answer in (made, changed, followed):
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_event_type")
        assert f"there is no type of event called {wrong}" in answer.json()["detail"]


@only_sqlite
def test_what_is_close_is_named(admin: httpx.Client) -> None:
    answer = admin.get("/api/v1/events/stream", params={"type": "rollout.rolledback"})
    assert "did you mean rollout.rolled_back or rollout.rollback" in answer.json()["detail"]
