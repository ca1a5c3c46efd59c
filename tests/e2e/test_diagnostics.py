"""`pilotwave devices logs`: a real agent answers the reader whom its owner named, and no other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one

pytestmark = pytest.mark.timeout(300)
SETTINGS = """
[diagnostics]
readers = ["{reader}"]
per_day = 2
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOfOne]:
    # the settings of the device name a key that is made before there is a server
    from tests.e2e.stage import ForkedStage

    desk = ForkedStage(tmp_path)
    said = desk.run("pilotwave", "keys", "reader", "--out", "keys/reader.pem", "--plain")
    settings = SETTINGS.format(reader=said.split()[-1])
    quick = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "2"}
    with fleet_of_one(tmp_path, settings=settings, server=quick) as found:
        yield found


def test_a_device_shows_its_log_to_the_reader_that_its_owner_named(fleet: FleetOfOne) -> None:
    stage = fleet.stage
    key = ("--key", "keys/reader.pem")
    said = stage.run("pilotwave", "devices", "logs", "board", *key, "--save", "board.json")
    assert "board of fleet one, server http://127.0.0.1" in said
    found = json.loads((stage.root / "board.json").read_text())
    assert found["status"]["directive_seq"] >= 0
    assert found["facts"]["runtime.onnxruntime"]
    assert "proxy" not in found["settings"]
    assert any(" info board of fleet one" in line for line in found["lines"])
    again = stage.run("pilotwave", "devices", "logs", "board", *key, "--last", "--json")
    assert json.loads(again) == found
    assert "board of fleet one" in stage.run("pilotwave", "devices", "logs", "board", *key)
    words = ("pilotwave", "devices", "logs", "board", *key, "--wait", "6s")
    assert "no answer yet" in stage.run(*words, check=False)  # two a day, and no third
    with closing(sqlite3.connect(stage.root / "data" / "pilotwave.db")) as database:
        (envelope,) = database.execute("SELECT envelope FROM diagnostics").fetchone()
    assert b"of fleet one" not in envelope


def test_whom_the_owner_did_not_name_is_refused_with_what_to_do(fleet: FleetOfOne) -> None:
    stage = fleet.stage
    stage.run("pilotwave", "keys", "reader", "--out", "keys/other.pem", "--plain")
    words = ("pilotwave", "devices", "logs", "board", "--key", "keys/other.pem")
    said = stage.run(*words, check=False)
    assert "the settings of this device do not name this key" in " ".join(said.split())
    assert "has answered nothing" in stage.run(*words, "--last", check=False)
    used = stage.run(*words[:-1], "keys/publisher.pem", check=False)
    assert "expected a reader's key (X25519)" in used
