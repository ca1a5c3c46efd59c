"""What cannot be undone, or concerns many devices, is asked first: with count and consequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import httpx
import pytest

from pilotwave_cli import bulk
from pilotwave_cli.client import Api
from pilotwave_cli.config import Config
from pilotwave_cli.confirm import FEW, about_rollout
from pilotwave_cli.errors import ApiError
from pilotwave_cli.remove_model import remove
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator
from tests.server.device_api.peer import SimulatedDevice


@dataclass(frozen=True)
class Things:
    """What the commands are about, by name or id."""

    model: str
    version: str
    group: str
    rollout: str
    device: str
    code: str
    token: str
    person: str


Words = tuple[object, ...]
# how each command that asks is called, and what it has to name
ASKS: dict[str, tuple[Callable[[Things], Words], str]] = {
    "devices revoke": (lambda t: (t.device,), "1 device"),
    "devices decommission": (lambda t: (t.device,), "1 device"),
    "devices reject": (lambda t: (t.device,), "1 device"),
    "codes delete": (lambda t: (t.code,), "1 code"),
    "groups delete": (lambda t: (t.group,), "devices of"),
    "rollouts next": (lambda t: (t.rollout,), "The next wave takes"),
    "versions yank": (lambda t: (t.model, t.version, "--reason", "bad"), "Every device"),
    "versions purge": (lambda t: (t.model, t.version, "--reason", "bad"), "0 devices run"),
    "versions deny": (lambda t: (t.model, t.version, "--reason", "bad"), "No device of the fleet"),
    "versions floor": (lambda t: (t.model, t.version), "Every device"),
    "tokens revoke": (lambda t: (t.token,), "1 token"),
    "people unbind": (lambda t: (t.person,), "1 person"),
}


@pytest.fixture
def rollout(pw: Operator, model: str, name: str) -> str:
    pw("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}", "--yes")
    pw("groups", "create", name, "--selector", f"site={name}")
    wish = (model, "1.0.0", "--group", name, "--allow-empty")
    return str(pw.json("rollouts", "create", *wish)["id"])


TYPOS = {"version": "2.0.0", "rollout": "r999"}


@pytest.fixture
def things(pw: Operator, model: str, name: str, rollout: str) -> Things:
    codes = pw.json("codes", "create", "--count", 2)["items"]
    with httpx.Client(base_url=pw.url) as client:
        assert SimulatedDevice(name, client).enrol(codes[0]["code"]).is_success
    token = pw.json("tokens", "create", name, "--role", "viewer")["id"]
    pw("people", "create", name, "--role", "viewer")
    return Things(model, "1.0.0", name, rollout, name, str(codes[1]["id"]), token, name)


def test_nothing_happens_where_nobody_can_answer(pw: Operator, things: Things) -> None:
    before = pw.json("events", "--limit", 1, "--actor", "token/admin")
    for command, (words, named) in ASKS.items():
        line = pw.fails(*command.split(), *words(things), status=2)
        assert "There is no terminal to answer: use --yes" in line, command
        assert named in line, line
    assert pw.json("events", "--limit", 1, "--actor", "token/admin") == before


def test_nobody_is_asked_about_what_is_not_there(pw: Operator, things: Things) -> None:
    for command, (words, _) in ASKS.items():
        for one in fields(things):
            typo = replace(things, **{one.name: TYPOS.get(one.name, "typo")})
            if words(typo) != words(things):
                line = pw.fails(*command.split(), *words(typo))
                assert "no" in line.split(), (command, line)
                assert "--yes" not in line, command


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


def test_a_script_stops_a_rollout_that_few_devices_took_and_is_told_what_follows(
    pw: Operator, rollout: str
) -> None:
    pw("rollouts", "start", rollout)
    done = pw.run("rollouts", "rollback", rollout, "--reason", "blurred")
    assert done.returncode == 0
    assert "0 devices took it or are about to. They go back" in " ".join(done.stderr.split())


class Answers:
    """An API that knows one rollout, which many devices took."""

    def get(self, path: str) -> dict[str, Any]:
        took = {"healthy": FEW, "in_flight": 0, "failed": 1, "takes": "5 %", "verdict": None}
        what = {"model": "detector", "version": "1.0.0", "group": "berlin"}
        return {**what, "waves": [took, took], "wave": 0}


def test_a_script_is_asked_where_many_devices_took_it_and_always_before_a_wave() -> None:
    steps = {
        verb: about_rollout(Answers(), "r1", verb)[2] for verb in ("rollback", "abort", "next")
    }  # type: ignore[arg-type]  # as much of it as is used
    assert steps == dict.fromkeys(steps, False)


def test_at_a_terminal_a_person_is_asked_however_few_they_are(
    pw: Operator, model: str, name: str, rollout: str
) -> None:
    before = pw.json("events", "--limit", 1, "--actor", "token/admin")
    for words, named in (
        (("assign", model, "1.0.0", "--group", name), f"0 devices of {name} get {model} 1.0.0"),
        (("rollouts", "abort", rollout), "0 devices took it"),
        (("rollouts", "rollback", rollout, "--reason", "bad"), "0 devices took it"),
    ):
        status, said = pw.at_terminal(*words, answer="n")
        assert (status != 0, named in said) == (True, True), said
    assert pw.json("events", "--limit", 1, "--actor", "token/admin") == before


@pytest.mark.parametrize(
    "words",
    [
        ("label", "shift=night"),
        ("accept",),
        ("rollback", "--model", "detector", "--reason", "bad"),
        ("retry", "--model", "detector"),
        ("decommission",),
    ],
)
def test_many_devices_at_once_are_always_asked_about(
    pw: Operator, name: str, words: tuple[str, ...]
) -> None:
    with httpx.Client(base_url=pw.url) as client:
        made = pw.json("codes", "create", "--label", f"site={name}")["items"]
        assert SimulatedDevice(f"{name}-1", client).enrol(made[0]["code"]).is_success
    before = pw.json("events", "--limit", 1, "--actor", "token/admin")
    line = pw.fails("devices", *words, "--selector", f"site={name}", status=2)
    assert "1 device" in line
    assert "There is no terminal to answer: use --yes" in line
    assert pw.json("events", "--limit", 1, "--actor", "token/admin") == before


def test_many_devices_are_acted_on_if_they_are_the_ones_that_were_counted(
    pw: Operator, name: str
) -> None:
    with httpx.Client(base_url=pw.url) as client:
        for n in range(2):
            made = pw.json("codes", "create", "--label", f"site={name}")["items"]
            assert SimulatedDevice(f"{name}-{n}", client).enrol(made[0]["code"]).is_success
    done = pw.run("devices", "label", "shift=night", "--selector", f"site={name}", "--yes")
    assert (done.returncode, "done: 2 of 2 devices" in done.stdout) == (0, True), done.stderr

    class OneMoved(Api):
        """A device takes another's place between the count and the act."""

        def post(self, path: str, *given: Any, **more: Any) -> Any:
            pw("devices", "label", f"{name}-0", "site=elsewhere")
            return super().post(path, *given, **more)

    config = Config(pw.url, pw.token, pw.keys)
    with OneMoved(config) as api, pytest.raises(ApiError, match=f"{name}-0 left"):
        bulk.act(api, "decommission", f"site={name}", "leave", yes=True)
    assert pw.json("devices", "show", f"{name}-1")["state"] == "enrolled"


class Says:
    """An API that gives one document and accepts every order."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def get(self, path: str) -> dict[str, Any]:
        return self.document

    def put(self, path: str) -> None:
        pass


@pytest.mark.parametrize("verb", ["rollback", "abort"])
def test_a_rollout_of_one_device_is_told_in_the_singular(verb: str) -> None:
    wave = {"healthy": 1, "in_flight": 0, "failed": 0}
    rollout = {"model": "m", "version": "1.0.0", "group": "g", "waves": [wave], "wave": 0}
    api: Any = Says(rollout)
    said = about_rollout(api, "r1", verb)[0]
    assert "1 device took it or is about to. It " in said


def test_one_device_that_cannot_remove_models_is_no_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for have, can, told in (
        (1, 0, "it cannot remove models: update its agent"),
        (4, 3, "1 of them cannot remove models: update its agent"),
        (4, 2, "2 of them cannot remove models: update their agents"),
    ):
        api: Any = Says({"have_it": have, "can_remove": can})
        remove(api, "/removal", "m", "g", yes=True)
        assert told in capsys.readouterr().err


def test_a_group_of_an_unknown_device_is_not_made(pw: Operator, name: str) -> None:
    assert "there is no device nobody" in pw.fails("groups", "create", name, "--device", "nobody")
    assert name not in {group["name"] for group in pw.json("groups", "list")}
