"""Who a device is: its key at both ends, a board that was flashed again, another server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests import programs
from tests.cli.operator import Operator


def agent(*words: object, folder: Path, status: int = 0) -> str:
    done: subprocess.CompletedProcess[str] = programs.run(
        "pilotwave_agent.cli:main", words, environment={}, folder=folder
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def enrol(pw: Operator, name: str, folder: Path, *more: object, status: int = 0) -> str:
    words = ("--server", pw.url, "--name", name, "--root", pw.keys / "root.json")
    return agent("enrol", *words, "--data", folder, *more, folder=pw.home, status=status)


def key_in(text: str) -> str:
    (key,) = re.findall(r"\bkey(?: of this device)? is ([0-9a-f]{64})\b", text)
    return str(key)


def test_the_key_is_the_same_at_enrol_in_status_and_when_it_is_accepted(
    pw: Operator, name: str, tmp_path: Path
) -> None:
    key = key_in(enrol(pw, name, tmp_path / "device"))
    assert key_in(pw("devices", "accept", name)) == key
    assert key_in(agent("status", "--data", tmp_path / "device", folder=tmp_path)) == key
    assert pw.json("devices", "show", name)["keyid"] == key


def test_board_that_was_flashed_again_takes_its_name_over(
    pw: Operator, name: str, tmp_path: Path
) -> None:
    code = pw("codes", "create", "--label", "site=berlin").strip()
    old = key_in(enrol(pw, name, tmp_path / "before", "--code", code))
    said = enrol(pw, name, tmp_path / "after", status=1)
    for command in (f"devices revoke {name}", f"codes create --device {name}"):
        assert f"`pilotwave {command}`" in said
    pw("devices", "revoke", "--yes", name)
    code = pw("codes", "create", "--device", name).strip()
    new = key_in(enrol(pw, name, tmp_path / "after", "--code", code))
    found = pw.json("devices", "show", name)
    assert new != old
    assert (found["keyid"], found["state"], found["labels"]) == (
        new,
        "enrolled",
        {"site": "berlin"},
    )


def test_device_goes_to_another_fleet_with_a_folder_of_its_own(
    pw: Operator, fresh: Callable[..., Operator], name: str, tmp_path: Path
) -> None:
    code = pw("codes", "create").strip()
    enrol(pw, name, tmp_path / "device", "--code", code)
    other = fresh()
    other("keys", "init", "--plain")
    code = other("codes", "create").strip()
    said = enrol(other, name, tmp_path / "device", "--code", code, status=2)
    assert f"server is {pw.url} there" in said
    enrol(other, name, tmp_path / "new", "--code", code)
    assert other.json("devices", "show", name)["state"] == "enrolled"
