"""What cannot be undone, or concerns many devices, is asked first: with count and consequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import typer

from pilotwave_cli.asking import FEW
from pilotwave_cli.main import cli
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator
from tests.server.device_api.peer import SimulatedDevice

Words = tuple[object, ...]
# how each command that asks is called with a model, a group and a rollout, and what it has to name
ASKS: dict[str, tuple[Callable[[str, str, str], Words], str]] = {
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
# these ask only where many devices get it, or where the version was rolled back before
ASKS_SOMETIMES = {
    "assign", "rollouts create", "rollouts approve", "rollouts start", "rollouts resume",
}  # fmt: skip
# these list first what goes, and then ask
LISTS_FIRST = {"publish", "keys rotate", "unassign", "devices remove", "models reset"}
# what these change can be changed back, or they make something new
NEED_NO_QUESTION = {
    "login", "status", "renew", "bytes", "events", "follow", "simulate", "golden",
    "devices label", "devices accept", "devices settle", "devices rollback", "devices pin",
    "devices unpin", "devices retry", "devices events", "devices history", "devices why",
    "codes create", "groups create", "groups add", "groups remove", "policies check",
    "policies save", "rollouts preview", "rollouts devices",
    "rollouts decisions", "rollouts pause", "rollouts retry", "sites limit", "deltas again",
    "versions undeny",
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
        assert asks == (name in ASKS or name in LISTS_FIRST or name in ASKS_SOMETIMES), name
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


def test_a_version_that_was_rolled_back_elsewhere_is_asked_about(
    pw: Operator, model: str, name: str, rollout: str
) -> None:
    def wish(group: str) -> tuple[str, ...]:
        return (model, "1.0.0", "--group", group)

    places = [f"{name}-{n}" for n in range(2)]
    for place in places:
        pw("groups", "create", place, "--selector", f"site={place}")
    draft = pw.json("rollouts", "create", *wish(places[0]), "--allow-empty")["id"]
    pw("rollouts", "start", rollout)
    pw("rollouts", "rollback", rollout, "--yes", "--reason", "blurred")
    for words in (
        ("assign", *wish(places[0])),
        ("rollouts", "create", *wish(places[1]), "--allow-empty"),
        ("rollouts", "start", draft),
        ("rollouts", "approve", draft),
        ("rollouts", "resume", draft),
    ):
        line = pw.fails(*words, status=2)
        assert f"It was rolled back in {rollout} ({name})." in line, words
        assert "use --yes" in line
    shown = pw.run("rollouts", "create", *wish(places[1]), "--allow-empty", "--dry-run").stderr
    assert f"{model} 1.0.0 was rolled back in {rollout} ({name}): " in shown
    pw("rollouts", "create", *wish(places[1]), "--allow-empty", "--yes")
    pw("rollouts", "start", draft, "--yes")


def test_a_script_assigns_to_few_devices_and_is_asked_about_many(
    pw: Operator, model: str, name: str
) -> None:
    pw("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}", "--yes")
    pw("groups", "create", name, "--selector", f"site={name}")
    pw("assign", model, "1.0.0", "--group", name)
    with httpx.Client(base_url=pw.url) as client:
        for n in range(FEW + 1):
            made = pw.json("codes", "create", "--label", f"site={name}")["items"]
            assert SimulatedDevice(f"{name}-{n}", client).enrol(made[0]["code"]).is_success
    line = pw.fails("assign", model, "1.0.0", "--group", name, status=2)
    assert f"{FEW + 1} devices of {name} get {model} 1.0.0 at once" in line


def test_rolling_a_whole_rollout_back_wants_a_reason(pw: Operator, rollout: str) -> None:
    done = pw.run("rollouts", "rollback", rollout, "--yes")
    assert done.returncode == 2
    assert "--reason" in done.stderr
    assert "reason" in pw.fails("rollouts", "rollback", rollout, "--yes", "--reason", " ")
