"""A server of an older release beside this one: it would switch the devices of a shadow wave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.stored import store_policy
from tests import history
from tests.server.device_api.peer import code_of
from tests.server.fleet_fixtures import Fleet

on_postgres = [
    pytest.mark.needs("postgresql"),
    pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True),
]
SHADOW = {"canary": {"devices": ["cam-1"]}, "shadow": {"share": 0.5}}
ALL = {"percent": 100}


def older_host(fleet: Fleet, *, host: str = "attic", age_s: int = 0) -> None:
    """What a server of before writes of itself."""
    with fleet.context.db.write() as session:
        session.execute(
            text(
                "INSERT INTO server_processes (id, host, seen_at, listening_since)"
                " VALUES (:id, :host, now() - make_interval(secs => :age), now())"
                " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"
            ),
            {"id": host, "host": host, "age": age_s},
        )


def wish(*waves: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {"group": "cams", "model": "detector", "version": "1.1.0"}
    return {**told, "document": {"name": "p", "waves": [*waves, ALL]}, **more}


@pytest.fixture
def cams(fleet: Fleet) -> Fleet:
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    fleet.device("cam-1", line="a")
    return fleet


class TestBesideAnOlderHost:
    pytestmark = on_postgres

    def test_no_rollout_with_a_shadow_wave_is_created_or_started(self, cams: Fleet) -> None:
        draft = cams.operator.post("/api/v1/rollouts", json=wish(SHADOW))
        assert draft.status_code == 201, draft.text
        start = f"/api/v1/rollouts/{draft.json()['id']}/start"
        older_host(cams)
        refused = cams.operator.post(start, json={})
        assert code_of(refused) == (409, "older_host")
        told = refused.json()["detail"]
        assert "the host attic is of an older release" in told
        assert "install this release there and restart its server, or stop it" in told
        cams.operator.post(start.replace("start", "abort"), json={}).raise_for_status()
        seen = cams.operator.post("/api/v1/rollouts/preview", json=wish(SHADOW)).json()
        assert (seen["refusal"], seen["refusal_sentence"]) == ("older_host", told)
        made = cams.operator.post("/api/v1/rollouts", json=wish(SHADOW, start=True))
        assert code_of(made) == (409, "older_host")
        older_host(cams, age_s=30)  # it was stopped
        made = cams.operator.post("/api/v1/rollouts", json=wish(SHADOW, start=True))
        assert made.status_code == 201, made.text

    def test_a_rollout_that_only_switches_goes_ahead(self, cams: Fleet) -> None:
        older_host(cams)
        made = cams.operator.post("/api/v1/rollouts", json=wish(start=True))
        assert made.status_code == 201, made.text


def test_what_is_shown_of_a_policy_is_the_policy(cams: Fleet) -> None:
    made = cams.operator.post("/api/v1/rollouts", json=wish(SHADOW))
    assert made.json()["document"]["waves"][0]["shadow"]["share"] == 0.5
    text = json.dumps({"name": "mine", "waves": [SHADOW, ALL]})
    saved = [cams.operator.put("/api/v1/policies/mine", json={"text": text}) for _ in range(2)]
    assert [s.json()["version"] for s in saved] == [1, 1], "the same again adds none"
    assert saved[0].json()["document"]["waves"][0]["shadow"]["share"] == 0.5


READ = """
import json, sys
from pilotwave_server.rollouts.policies.stored import stored_policy
print(len(stored_policy(json.load(sys.stdin)).waves))
"""


@pytest.mark.needs("history")
def test_an_older_server_reads_no_policy_with_a_shadow_wave(tmp_path: Path) -> None:
    history.unpack(history.BEFORE_SHADOWS, tmp_path / "before")

    def read(*waves: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        kept = store_policy(parse_policy({"name": "p", "waves": [*waves, ALL]}))
        paths = f"{tmp_path / 'before' / 'agent'}:{tmp_path / 'before' / 'server'}"
        return subprocess.run(
            [sys.executable, "-c", READ],
            input=json.dumps(kept),
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert read({"count": 1}).stdout == "2\n"
    refused = read(SHADOW)
    assert refused.returncode == 1
    assert "ValidationError" in refused.stderr
