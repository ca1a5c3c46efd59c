"""What cannot be undone, or concerns many devices, is asked first: with count and consequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import typer

from pilotwave_cli.main import cli
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator

Words = tuple[object, ...]
# how each command that asks is called with a model, a group and a rollout, and what it has to name
ASKS: dict[str, tuple[Callable[[str, str, str], Words], str]] = {
    "assign": (lambda m, g, r: (m, "1.0.0", "--group", g), "0 devices of"),
    "devices revoke": (lambda m, g, r: ("cam-1",), "1 device"),
    "devices decommission": (lambda m, g, r: ("cam-1",), "1 device"),
    "devices reject": (lambda m, g, r: ("cam-1",), "1 device"),
    "codes delete": (lambda m, g, r: ("1",), "1 code"),
    "groups delete": (lambda m, g, r: (g,), "0 devices"),
    "rollouts abort": (lambda m, g, r: (r,), "0 devices took it"),
    "rollouts rollback": (lambda m, g, r: (r, "--reason", "bad"), "0 devices took it"),
    "rollouts next": (lambda m, g, r: (r,), "The next wave takes"),
    "versions yank": (lambda m, g, r: (m, "1.0.0", "--reason", "bad"), "Every device"),
    "versions deny": (lambda m, g, r: (m, "1.0.0", "--reason", "bad"), "No device of the fleet"),
    "versions floor": (lambda m, g, r: (m, "1.0.0"), "Every device"),
    "tokens revoke": (lambda m, g, r: ("abc",), "1 token"),
    "people unbind": (lambda m, g, r: ("ada",), "1 person"),
    "webhooks delete": (lambda m, g, r: ("ops",), "1 webhook"),
}
# these list first what goes, and then ask
LISTS_FIRST = {"publish", "keys rotate", "unassign", "devices remove", "models reset"}
# what these change can be changed back, or they make something new
NEED_NO_QUESTION = {
    "login", "status", "renew", "bytes", "events", "follow", "simulate", "golden",
    "devices label", "devices accept", "devices settle", "devices rollback", "devices pin",
    "devices unpin", "devices retry", "devices events", "devices history", "devices why",
    "codes create", "groups create", "groups add", "groups remove", "policies check",
    "policies save", "rollouts create", "rollouts preview", "rollouts devices",
    "rollouts decisions", "rollouts approve", "rollouts start", "rollouts pause",
    "rollouts resume", "rollouts retry", "sites limit", "deltas again", "versions undeny",
    "models create", "keys init", "keys reference", "keys sign", "keys submit", "tokens create",
    "people create", "people link", "people bind", "webhooks create", "webhooks change",
    "webhooks secret", "webhooks test", "webhooks deliveries", "webhooks again", "audit export",
    "audit verify",
}  # fmt: skip


def commands(command: Any, path: str = "") -> dict[str, Any]:
    below = getattr(command, "commands", None)
    if below is None:
        return {path: command}
    found: dict[str, Any] = {}
    for name, one in below.items():
        found |= commands(one, f"{path} {name}".strip())
    return found


def test_each_command_is_decided_on() -> None:
    for name, command in commands(typer.main.get_command(cli)).items():
        asks = any("--yes" in param.opts for param in command.params)
        reads = name.split()[-1] in ("list", "show")
        assert asks == (name in ASKS or name in LISTS_FIRST), name
        assert asks or reads or name in NEED_NO_QUESTION, f"{name}: ask, or say why not"


@pytest.fixture
def rollout(pw: Operator, model: str, name: str) -> str:
    pw("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}", "--yes")
    pw("groups", "create", name, "--selector", f"site={name}")
    wish = (model, "1.0.0", "--group", name, "--allow-empty")
    return str(pw.json("rollouts", "create", *wish)["id"])


def test_nothing_happens_where_nobody_can_answer(
    pw: Operator, model: str, name: str, rollout: str
) -> None:
    before = pw.json("events", "--limit", 1)
    for command, (words, named) in ASKS.items():
        line = pw.fails(*command.split(), *words(model, name, rollout), status=2)
        assert "There is no terminal to answer: use --yes" in line, command
        assert named in line, line
    assert pw.json("events", "--limit", 1) == before


def test_assigning_says_where_the_version_was_taken_back(
    pw: Operator, model: str, name: str, rollout: str
) -> None:
    pw("rollouts", "start", rollout)
    pw("rollouts", "rollback", rollout, "--yes", "--reason", "blurred")
    line = pw.fails("assign", model, "1.0.0", "--group", name, status=2)
    assert f"It was rolled back in {rollout} ({name})" in line


def test_rolling_a_whole_rollout_back_wants_a_reason(pw: Operator, rollout: str) -> None:
    done = pw.run("rollouts", "rollback", rollout, "--yes")
    assert done.returncode == 2
    assert "--reason" in done.stderr
    assert "reason" in pw.fails("rollouts", "rollback", rollout, "--yes", "--reason", " ")
