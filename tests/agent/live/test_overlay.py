"""An application's answers with an overlay: of the very version that it was made for, or without.

A test plays the agent: it sets the links. Each version answers with its own head.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent import overlays
from pilotwave_agent.live import Answer, LiveModel
from pilotwave_agent.overlays import Adapting
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.device_plan import Kind, Scores
from pilotwave_protocol.learning.overlaid import Overlaid
from pilotwave_protocol.learning.overlay import Overlay, file_name
from pilotwave_protocol.learning.statistics import write_numbers
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.sketch import Sketch
from tests.peers.shelf import Shelf
from tests.protocol.learning.field import CLASSES, FEATURES, HIDDEN, seen
from tests.protocol.learning.models import classifier

SOON_S = 30.0
X = {"x": seen(1, 3)[0]}


class Agent:
    """What the agent does, by a test's word."""

    def __init__(self, data: Path) -> None:
        (data / "live").mkdir()
        self.shelf = Shelf(data)

    def serve(self, number: int) -> Installed:
        head = np.random.default_rng(number).normal(size=(FEATURES + 1, CLASSES))
        version = self.shelf.add_files(number, {"model.onnx": classifier(HIDDEN, head)})
        self.shelf.switch(version)
        return version

    def overlay(self, version: Installed, seed: int, **changes: Any) -> str:
        """Make an overlay of its own and have it used; return its digest."""
        head = np.random.default_rng(seed).normal(size=(FEATURES + 1, CLASSES))
        about = {
            "model": "detector",
            "version": version.version,
            "sha256": version.sha256,
            "variant": version.variant,
            "plan": "b" * 64,
            "embedding": "active",
            "features": FEATURES,
            "classes": CLASSES,
            "scores": Scores("probs", Kind.PROBABILITIES),
            "clip": "20",
            "distance": "5",
            "gain": "0.1",
            "numbers": "",
            "examples": 40,
            "held_out": 20,
            "better": 9,
            "worse": 0,
            "since": datetime(2026, 11, 30, tzinfo=timezone.utc),
            **changes,
        }
        raw = Overlay(**about).to_file(write_numbers(head))
        digest = sha256_hex(raw)
        state = Adapting("b" * 64, version.sha256, version.variant, overlay=digest)
        overlays.install(self.shelf.disk, self.shelf.layout, "detector", raw, state)
        return digest

    def drop(self) -> None:
        state = overlays.read(self.shelf.disk, self.shelf.layout, "detector")
        assert state is not None
        overlays.drop(self.shelf.disk, self.shelf.layout, "detector", state, "a test says so")

    def file(self, digest: str) -> Path:
        return self.shelf.layout.overlays("detector") / file_name(digest)


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


@pytest.fixture
def opened(agent: Agent) -> Iterator[Callable[..., LiveModel]]:
    made: list[LiveModel] = []

    def open_(**given: Any) -> LiveModel:
        given = {"app": "test", "wait_s": SOON_S, "heartbeat_s": 0.2, **given}
        made.append(LiveModel("detector", data=agent.shelf.data, **given))
        return made[-1]

    yield open_
    for model in made:
        model.close()


def until(what: Callable[[], object]) -> None:
    ends = time.monotonic() + SOON_S
    while not what():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.01)


def expected(outputs: Mapping[str, Any], agent: Agent, digest: str) -> np.ndarray:
    raw = agent.file(digest).read_bytes()
    found = Overlaid.from_file(raw, file_name(digest)).answer(outputs)
    assert found is not None
    return np.asarray(found["probs"])


def test_an_overlay_is_taken_and_left_between_calls_without_loading_anew(
    agent: Agent, opened: Callable[..., LiveModel]
) -> None:
    version = agent.serve(1)
    model = opened()
    plain = model.run(X)
    assert (plain.overlay, plain.base is plain) == ("", True)
    runner = model._front()
    digest = agent.overlay(version, 5)
    until(lambda: model.run(X).overlay == digest)
    answer = model.run(X)
    np.testing.assert_array_equal(answer["probs"], expected(plain, agent, digest))
    np.testing.assert_array_equal(answer.base["probs"], plain["probs"])
    np.testing.assert_array_equal(answer["active"], plain["active"])
    assert str(answer.version) == "detector 1.1.0 (onnx)"
    agent.drop()
    until(lambda: model.run(X).overlay == "")
    assert model._front() is runner


def test_a_process_that_starts_with_an_overlay_answers_with_it_from_the_first_call(
    agent: Agent, opened: Callable[..., LiveModel]
) -> None:
    digest = agent.overlay(agent.serve(1), 5)
    assert opened().run(X).overlay == digest


def test_an_overlay_of_another_version_or_variant_is_never_used(
    agent: Agent, opened: Callable[..., LiveModel]
) -> None:
    first = agent.serve(1)
    digest = agent.overlay(first, 5)
    model = opened()
    assert model.run(X).overlay == digest
    agent.serve(2)  # the link still names what was made for the first
    until(lambda: model.run(X).version.version == "1.2.0")
    assert model.run(X).overlay == ""
    agent.shelf.back()
    until(lambda: model.run(X).overlay == digest)
    agent.overlay(first, 6, variant="onnx-int8")
    until(lambda: model.run(X).overlay == "")


@pytest.mark.parametrize(
    "bend",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["changed", "empty", "gone"],
)
def test_a_file_that_was_changed_is_none(
    agent: Agent, opened: Callable[..., LiveModel], bend: Callable[[Path], object]
) -> None:
    digest = agent.overlay(agent.serve(1), 5)
    bend(agent.file(digest))
    answer = opened().run(X)
    assert (answer.overlay, answer.base is answer) == ("", True)


def test_outputs_of_another_shape_stand_as_they_are(
    agent: Agent, opened: Callable[..., LiveModel]
) -> None:
    agent.overlay(agent.serve(1), 5, embedding="hidden")
    assert opened().run(X).overlay == ""


def test_a_pinned_version_keeps_its_overlay(agent: Agent, opened: Callable[..., LiveModel]) -> None:
    digest = agent.overlay(agent.serve(1), 5)
    model = opened()
    with model.pin() as pinned:
        agent.drop()
        until(lambda: model.run(X).overlay == "")
        assert pinned.run(X).overlay == digest


def test_under_load_no_answer_pairs_a_version_with_anothers_overlay(
    agent: Agent, opened: Callable[..., LiveModel]
) -> None:
    first, second = agent.serve(2), agent.serve(1)
    owner = {agent.overlay(version, n): version for version in (first, second) for n in (7, 8)}
    raws: dict[str, bytes] = {}
    for version in (first, second):
        for n in (7, 8):
            digest = agent.overlay(version, n)
            raws[digest] = agent.file(digest).read_bytes()
    assert raws.keys() == owner.keys()
    model = opened()
    ends, wrong, seen_pairs = threading.Event(), [], set()

    def call() -> None:
        while not ends.is_set():
            answer = model.run(X)
            found = fault(answer)
            seen_pairs.add((answer.version.version, answer.overlay))
            if found:
                wrong.append(found)

    def fault(answer: Answer) -> str:
        if answer.overlay == "":
            return ""
        if owner[answer.overlay].sha256 != answer.version.sha256:
            return f"{answer.version} with the overlay of {owner[answer.overlay].version}"
        made = Overlaid.from_file(raws[answer.overlay], file_name(answer.overlay))
        wanted = made.answer(answer.base)
        assert wanted is not None
        return "" if np.array_equal(wanted["probs"], answer["probs"]) else "other numbers"

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    random = np.random.default_rng(0)
    try:
        for turn in range(30):
            version = (first, second)[turn % 2]
            agent.shelf.switch(version)
            for _ in range(2):
                agent.overlay((first, second)[random.integers(2)], int(random.integers(7, 9)))
                time.sleep(0.03)
            if turn % 5 == 4:
                agent.drop()
        agent.shelf.switch(first)
        last = agent.overlay(first, 7)
        until(lambda: model.run(X).overlay == last)
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert len(seen_pairs) >= 4


def test_what_is_counted_of_an_overlaid_answer_is_no_number_of_the_version(
    agent: Agent, opened: Callable[..., LiveModel]
) -> None:
    version = agent.serve(1)
    model = opened(heartbeat_s=600)
    model.score(0.25, model.run(X))
    agent.overlay(version, 5)
    until(lambda: model.run(X).overlay)
    answer = model.run(X)
    model.score(0.75, answer)
    model.score(0.5, answer.base)
    with pytest.raises(ValueError, match="measured by the SDK"):
        model.score(1.0, answer, metric="latency_ms")
    with pytest.raises(ValueError):
        model.score(float("nan"), answer)
    for n in range(20):
        model.score(1.0, answer, metric=f"mine{n}")
    for n in range(5):  # those names took none of the application's
        model.score(1.0, answer.base, metric=f"mine{n}")
    model.score(1.0, answer, metric="m" * 64)
    model.close()
    counts: dict[str, int] = {}
    for path in (agent.shelf.data / "live" / "detector").glob("*.window"):
        for name, sketch in json.loads(path.read_bytes())["sketches"].items():
            counts[name] = counts.get(name, 0) + Sketch.from_plain(sketch).count
    assert (counts["score"], counts["overlay_score"]) == (2, 1)
    assert counts["error"] == counts["latency_ms"]
