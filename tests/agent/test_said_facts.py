"""Facts that the owner says, in the settings or by a program: which count, what stands if not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent import facts
from pilotwave_agent.facts import facts_of, own_facts
from pilotwave_agent.resident.reconsider import _fits_by
from pilotwave_agent.said_facts import said_facts
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import BadConfig, Config
from pilotwave_agent.settings.facts import FactSettings, is_app_fact

OWN = {"server": "http://127.0.0.1", "device": "cam-1", "data_dir": "."}


def with_facts(folder: Path, **said: Any) -> Config:
    return settings.parse({**OWN, "facts": said}, base=folder)


def program(folder: Path, script: str) -> FactSettings:
    return FactSettings({"app": "fixed", "app.camera": "imx477"}, ("/bin/sh", "-c", script), 0.5)


def test_fixed_facts_are_reported_beside_what_is_found(tmp_path: Path) -> None:
    found = facts_of(with_facts(tmp_path, **{"app": "2.4.1", "app.camera": "imx477"}))
    assert (found["app"], found["app.camera"]) == ("2.4.1", "imx477")
    assert found["arch"]


@pytest.mark.parametrize(
    "said",
    [
        {"arch": "x86_64"},  # what the agent finds
        {"application": "1"},  # begins with the letters only
        {"app.": "1"},
        {"app": {"camera": "imx477"}},  # TOML's app.camera without quotes
        {"app": "a\nb"},
        {"app": float("nan")},
        {"app": "x" * 257},
        {f"app.a{n}": 1 for n in range(17)},
        {"timeout_s": 0},
        {"command": "sorter --facts"},
        {"hide": ["app"]},
        {"hide": ["arch"]},
        {"hide": ["allow_unsafe_formats"]},
        {"hide": "cpu.avx2"},
    ],
)
def test_wrong_facts_are_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match="facts"):
        with_facts(tmp_path, **said)


def test_what_is_hidden_is_not_told_and_that_is_told(tmp_path: Path) -> None:
    whole = facts_of(with_facts(tmp_path))
    gone = [next(key for key in whole if key.startswith("cpu.")), "runtime.onnxruntime"]
    found = facts_of(with_facts(tmp_path, hide=[*gone, "cpu.none"]))
    assert found.pop("agent.hides") == " ".join(sorted([*gone, "cpu.none"]))
    assert whole.keys() - found.keys() == set(gone)
    assert found.items() <= whole.items()


def test_no_fact_of_the_agents_own_can_be_shadowed(tmp_path: Path) -> None:
    found = facts.read_facts(tmp_path) | own_facts(with_facts(tmp_path))
    assert not [key for key in found if is_app_fact(key)]


def test_what_a_program_says_stands_before_what_is_fixed(tmp_path: Path) -> None:
    said = program(tmp_path, """echo '{"app": "2.5.0", "app.ready": true}'""")
    expected = {"app": "2.5.0", "app.ready": True, "app.camera": "imx477"}
    assert said_facts(said, tmp_path / "kept") == expected


@pytest.mark.parametrize(
    "script",
    [
        "exit 3",
        "sleep 60 & sleep 60",
        "echo 2.4.1",
        """echo '["app"]'""",
        """echo '{"arch": "mips"}'""",
        """echo '{"app": "1", "app": "2"}'""",
        """echo '{"app": {"deep": 1}}'""",
        """echo '{"app": 1e999}'""",
        'printf \'{"app": "%9000s"}\' x',
        "kill -9 $$",
        "printf ''",
    ],
)
def test_a_program_that_fails_leaves_what_it_said_before(tmp_path: Path, script: str) -> None:
    kept, begun = tmp_path / "kept", time.monotonic()
    assert said_facts(program(tmp_path, script), kept)["app"] == "fixed"
    said_facts(program(tmp_path, """echo '{"app": "2.5.0"}'"""), kept)
    assert said_facts(program(tmp_path, script), kept)["app"] == "2.5.0"
    assert time.monotonic() - begun < 20


def test_a_missing_program_and_a_damaged_memory_are_borne(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"{]")
    gone = FactSettings({"app": "fixed"}, ("/no/such/program",), 1.0)
    assert said_facts(gone, kept) == {"app": "fixed"}


def test_a_refusal_is_looked_at_again_when_such_a_fact_changes() -> None:
    assert _fits_by("app")
    assert _fits_by("app.camera")
    assert not _fits_by("temperature_c")
