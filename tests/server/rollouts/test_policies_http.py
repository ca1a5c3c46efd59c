"""Policies over HTTP: saved, checked, built in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilotwave_server.rollouts.policies.builtin import TEXTS, builtin
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.yaml_text import MAX_TEXT, read_text
from tests.server.device_api.peer import code_of
from tests.server.fleet_fixtures import Fleet

MINE = """\
name: mine
waves:
  - percent: 10%
    soak: 5m
  - percent: 100%
"""


def test_the_guides_example_is_a_policy() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "rollouts.md").read_text()
    data, lines = read_text(guide.partition("```yaml\n")[2].partition("```")[0])
    assert len(parse_policy(data, lines=lines).waves) == 4


def put(fleet: Fleet, name: str, **body: Any) -> Any:
    return fleet.operator.put(f"/api/v1/policies/{name}", json=body)


@pytest.mark.parametrize("name", TEXTS)
def test_built_in_policy_is_whole_and_ends_with_everyone(name: str) -> None:
    policy = builtin(name)
    assert policy is not None
    assert policy.name == name
    assert policy.waves[-1].percent == 100
    assert all(wave.gates for wave in policy.waves)
    assert policy.deadlines.unreached_s


def test_each_change_adds_a_version_and_the_same_text_none(fleet: Fleet) -> None:
    assert put(fleet, "mine", text=MINE).json()["version"] == 1
    assert put(fleet, "mine", text=MINE).json()["version"] == 1
    second = put(fleet, "mine", text=MINE.replace("5m", "6m")).json()
    assert (second["version"], second["document"]["waves"][0]["soak_s"]) == (2, 360)
    first = fleet.operator.get("/api/v1/policies/mine", params={"version": 1}).json()
    assert first["document"]["waves"][0]["soak_s"] == 300
    versions = fleet.operator.get("/api/v1/policies/mine/versions").json()["items"]
    assert [v["version"] for v in versions] == [2, 1]
    events = fleet.operator.get("/api/v1/events", params={"object": "policy/mine"})
    assert len(events.json()["items"]) == 2


def test_built_in_policies_are_listed_until_one_is_saved_in_their_place(fleet: Fleet) -> None:
    listed = fleet.operator.get("/api/v1/policies").json()["items"]
    assert {p["name"]: p["version"] for p in listed} == dict.fromkeys(TEXTS, 0)
    put(fleet, "careful", text=MINE.replace("name: mine", "name: careful"))
    listed = fleet.operator.get("/api/v1/policies").json()["items"]
    assert {p["name"]: p["version"] for p in listed}["careful"] == 1
    assert len(listed) == len(TEXTS)


def test_faults_name_path_and_line(fleet: Fleet) -> None:
    text = MINE.replace("soak: 5m", "soak: soon").replace("100%", "90%")
    answer = fleet.operator.post("/api/v1/policies/check", json={"text": text})
    assert code_of(answer) == (422, "policy_invalid")
    assert {(e["path"], e["line"]) for e in answer.json()["errors"]} == {
        ("waves[0].soak", 4),
        ("waves[1]", 5),
    }


def test_other_refusals(fleet: Fleet) -> None:
    assert code_of(put(fleet, "mine")) == (422, "one_policy")
    assert code_of(put(fleet, "mine", text=MINE, document={})) == (422, "one_policy")
    assert code_of(put(fleet, "other", text=MINE)) == (422, "policy_invalid")
    answer = fleet.operator.get("/api/v1/policies/nobody")
    assert code_of(answer) == (404, "policy_unknown")
    assert "careful" in answer.json()["detail"]
    older = fleet.operator.get("/api/v1/policies/careful", params={"version": 3})
    assert code_of(older) == (404, "policy_unknown")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: &x 1\nb: *x\n", 1, "no anchor"),
        ("a: 1\na: 2\n", 2, "there twice"),
        ("a: [1\n", 2, "YAML or JSON"),
        ("a: !!python/object:os.system x\n", 1, "no tag"),
        ("[" * 2000, None, "levels"),
        ("- " * 2000 + "x", None, "levels"),
        ("x" * (MAX_TEXT + 1), None, "characters"),
        ("a: 1\n---\nb: 2\n", 2, "YAML or JSON"),
        ("? [a]\n: 1\n", 1, "words as keys"),
        ("a: \x00\n", None, "YAML or JSON"),
    ],
)
def test_text_that_is_no_plain_yaml_is_refused(text: str, line: int | None, words: str) -> None:
    with pytest.raises(PolicyInvalid, match=words) as caught:
        read_text(text)
    if line is not None:
        assert caught.value.faults[0].line == line


def test_words_stay_words() -> None:
    data, lines = read_text('a: 1:30\nb: 2026-01-01\nc: yes\nd: 010\ne: "5"\nf: 0.5\ng: ~\n')
    assert data == {
        "a": "1:30",
        "b": "2026-01-01",
        "c": "yes",
        "d": 10,
        "e": "5",
        "f": 0.5,
        "g": None,
    }
    assert lines["c"] == 3
