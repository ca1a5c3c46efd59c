"""Who runs a fleet hears when an experiment waits, fails or is done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from pilotwave_server.attention.service import list_items_of
from tests.server.dashboard.conftest import browser, make_person, sign_in
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.learning.test_rounds import cams, published, send, start, update

__all__ = ["browser", "cams", "make_person", "published"]
pytestmark = [only_sqlite, pytest.mark.long]


def entries(fleet: Fleet) -> list[tuple[str, str]]:
    found = fleet.operator.get("/api/v1/attention").json()["items"]
    return [(e["state"], e["sentence"]) for e in found if e["object"].startswith("experiment/")]


def verbs(fleet: Fleet) -> list[str]:
    found = fleet.operator.get("/api/v1/events?limit=100").json()["items"]
    return sorted(e["verb"] for e in found if e["verb"].startswith("learning."))


def step(fleet: Fleet, word: str, number: int = 1) -> None:
    answer = fleet.operator.post(f"/api/v1/learning/experiments/{number}/{word}")
    assert answer.status_code in (200, 204), answer.text


def test_an_experiment_that_waits_fails_or_is_done_needs_attention(
    fleet: Fleet, cams: list[SimulatedDevice], browser: httpx.Client, make_person: Any
) -> None:
    start(fleet)
    assert entries(fleet) == []
    step(fleet, "pause")
    assert entries(fleet) == [("paused", "paused by token/test-operator")]
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    assert 'href="/learning/1"' in browser.get("/").text
    step(fleet, "end")
    assert entries(fleet) == [("failed", "0 of 3 devices took part")]
    start(fleet)
    for seed, cam in enumerate(cams):
        assert send(cam, update(fleet, cam, seed)).status_code == 204
    step(fleet, "end", 2)
    fetch = "pilotwave learn fetch detector autumn-1 --file BASE.onnx --evaluate UNSEEN.npz"
    done = ("completed", f"take its result: `{fetch} --out LEARNT.onnx`")
    assert entries(fleet) == [done, ("failed", "0 of 3 devices took part")]
    told = ["complete", "end", "end", "fail", "pause", "start", "start"]
    assert verbs(fleet) == [f"learning.{word}" for word in told]
    later = fleet.context.clock() + timedelta(days=3)
    with fleet.context.db.read() as session:
        assert [i for i in list_items_of(session, "detector", later) if "experiment" in i.key] == []
