"""Drift on a device: applications count, the agent judges by the reference and tells once."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from onnx import TensorProto, helper

from pilotwave_agent.apps.mailbox import Mailbox
from pilotwave_agent.captures import Captures, tell_applications
from pilotwave_agent.check_in.drift import QUIET_S, DriftWatch
from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.core.drift import Evidence
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.identity import load as identity_of
from pilotwave_agent.live import LiveModel
from pilotwave_agent.live.recorder import Recorder
from pilotwave_agent.settings.capture import CaptureSettings
from pilotwave_protocol.messages.case import parse_case, split_case
from pilotwave_protocol.reference import Confidence, Edges, Reference
from pilotwave_protocol.sealing import public_hex
from tests.agent.mortal import Dies, Mortal
from tests.agent.test_mailbox import send
from tests.peers.device import Device
from tests.peers.registry import Registry, example
from tests.peers.shelf import Shelf

WALL = 1_900_000_000.0
REFERENCE = Reference(
    inputs=500,
    confidence=Confidence(below=0.6, low=50, output="y"),
    classes=(250, 250),
    numbers={"brightness": Edges(0.2, 0.8, 10)},
)
BOUND = REFERENCE.bound("low_confidence") or 0.0
NUMBERS = itertools.count()
SURE, UNSURE = [0.9, 0.1], [0.5, 0.5]


def test_quiet_inputs_say_nothing_and_hide_nothing() -> None:
    draw, evidence = random.Random(1), Evidence()
    for _ in range(20_000):
        evidence = evidence.after(draw.random() < 0.1, 1, BOUND)
        assert not evidence.is_drift
    inputs = 0
    while not evidence.is_drift:
        evidence = evidence.after(draw.random() < 0.5, 1, BOUND)
        inputs += 1
    assert 10 < inputs < 80
    assert evidence.seen < 200  # only since it began anew
    assert evidence.counted / evidence.seen > BOUND


def test_a_share_at_the_bound_is_no_drift() -> None:
    draw, evidence = random.Random(2), Evidence()
    for _ in range(20_000):
        evidence = evidence.after(draw.random() < BOUND, 1, BOUND)
        assert not evidence.is_drift


def test_a_window_at_once_or_input_by_input_is_as_much_evidence() -> None:
    one_by_one = Evidence()
    for _ in range(20):
        one_by_one = one_by_one.after(1, 1, BOUND)
    at_once = Evidence().after(20, 20, BOUND)
    assert one_by_one.sums == pytest.approx(at_once.sums)
    assert (one_by_one.counted, one_by_one.seen) == (20, 20)


def identity() -> bytes:
    """A model that answers with its input: [N, 2] probabilities, as the test wishes."""
    shape = ["n", 2]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(made))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "live" / "detector").mkdir(parents=True)
    made = Shelf(tmp_path)
    serve(made, 1)
    return made


def serve(shelf: Shelf, number: int, reference: bytes = REFERENCE.to_bytes()) -> None:
    version = shelf.add(number)
    folder = shelf.layout.version("detector", version)
    (folder / "model.onnx").write_bytes(identity())
    (folder / "reference.json").write_bytes(reference)
    shelf.switch(version)


def answer(shelf: Shelf, rows: list[list[float]], *, batch: int = 1) -> None:
    """Run an application's process on these probabilities, to its end."""
    with LiveModel("detector", data=shelf.data, app="test", wait_s=30.0) as model:
        for first in range(0, len(rows), batch):
            model.run({"x": np.asarray(rows[first : first + batch], np.float32)})


class Agent:
    """The part of a resident agent that collects; `disk` is asked for each change."""

    def __init__(self, shelf: Shelf, disk: Disk | None = None) -> None:
        layout, disk = shelf.layout, disk or Disk()
        self.drift = DriftWatch(disk, layout.root, layout.drift)
        self.telemetry = Telemetry(disk, layout.live, layout.telemetry, drift=self.drift)

    def collect(self, wall: float = WALL) -> DriftWatch:
        self.telemetry.collect(wall)
        self.counted = self.telemetry.pending()
        for report in self.counted:
            self.telemetry.acked(report.id)
        return self.drift


def counts(agent: Agent) -> dict[str, tuple[int, float]]:
    return {r.metric: (r.sketch.count, r.sketch.sum) for r in agent.counted}


@pytest.mark.parametrize("batch", [1, 32])
def test_unsure_answers_and_their_classes_are_counted(shelf: Shelf, batch: int) -> None:
    answer(shelf, [SURE] * 20 + [UNSURE] * 5 + [[0.2, 0.8]] * 7, batch=batch)
    agent = Agent(shelf)
    assert agent.collect().alarms == ()
    assert counts(agent)["low_confidence"] == (32, 5.0)
    assert counts(agent)["top_class"] == (32, 7.0)


def test_drift_is_told_with_its_numbers_and_outlives_restarts(shelf: Shelf) -> None:
    for _ in range(4):
        answer(shelf, [UNSURE] * 3 + [SURE] * 2)
        agent = Agent(shelf)
        agent.collect()
    assert agent.drift.alarms == ()
    answer(shelf, [UNSURE] * 4)
    (alarm,) = Agent(shelf).collect().alarms
    assert (alarm.model, alarm.version, alarm.metric) == ("detector", "1.1.0", "low_confidence")
    assert alarm.sentence == (
        "16 of the last 24 inputs had a confidence below 0.6; of the reference's 500 inputs 10.0% "
        "had, and at most 16.9% may"
    )
    again = Agent(shelf)
    assert again.drift.alarms == (alarm,)  # until the journal has it
    again.drift.told([alarm])
    assert Agent(shelf).drift.alarms == ()


def test_a_drift_that_lasts_is_told_once_a_day(shelf: Shelf) -> None:
    told = []
    for hour in range(50):
        answer_quickly(shelf, 40)
        drift = Agent(shelf).collect(WALL + hour * 3600)
        told += [hour] * len(drift.alarms)
        drift.told(drift.alarms)
    assert told == [0, 24, 48]
    answer_quickly(shelf, 40)
    assert Agent(shelf).collect(WALL - 5 * QUIET_S).alarms  # the clock was set back


def answer_quickly(shelf: Shelf, unsure: int) -> None:
    """Count as an application does, without loading a model."""
    from pilotwave_agent.live.input_checks import InputChecks
    from pilotwave_agent.live.links import ModelLinks
    from pilotwave_agent.live.loader import version_of

    links = ModelLinks(shelf.data, "detector")
    name = links.named_by("current") or ""
    recorder = Recorder(links.desk, f"quick-{next(NUMBERS)}")
    version = version_of(links.about(name), name, links)
    InputChecks().answered(recorder, version, {"y": np.full((unsure, 2), 0.5, np.float32)})
    recorder.flush()


def test_another_version_begins_anew_with_its_own_reference(shelf: Shelf) -> None:
    answer_quickly(shelf, 6)
    Agent(shelf).collect()
    other = replace(REFERENCE, confidence=Confidence(below=0.4, low=50, output="y"))
    serve(shelf, 2, other.to_bytes())
    answer_quickly(shelf, 200)  # sure enough for this one
    assert Agent(shelf).collect().alarms == ()
    kept = json.loads(shelf.layout.drift.read_bytes())["watched"]
    assert [w["name"] for w in kept] == [shelf.layout.version("detector", shelf.current).name]  # type: ignore[arg-type]


@pytest.mark.parametrize("reference", [b"", b"{}", b'{"schema": "pilotwave/reference/9"}'])
def test_a_reference_that_is_none_fails_no_call(shelf: Shelf, reference: bytes) -> None:
    serve(shelf, 2, reference)
    answer(shelf, [UNSURE] * 50)
    agent = Agent(shelf)
    assert agent.collect().alarms == ()
    assert set(counts(agent)) == {"latency_ms", "error"}


def test_answers_of_another_kind_than_the_reference_fails_no_call(shelf: Shelf) -> None:
    other = replace(REFERENCE, confidence=Confidence(0.5, 50, output="nothing"))
    serve(shelf, 2, other.to_bytes())
    answer(shelf, [UNSURE] * 3)
    agent = Agent(shelf)
    agent.collect()
    assert counts(agent)["latency_ms"][0] == 3


def test_observed_numbers_outside_the_edges_and_the_applications_score_count(shelf: Shelf) -> None:
    scored = replace(REFERENCE, confidence=Confidence(below=0.3, low=50))
    serve(shelf, 2, scored.to_bytes())
    with LiveModel("detector", data=shelf.data, app="test", wait_s=30.0) as model:
        found = model.run({"x": np.asarray([UNSURE], np.float32)})
        for number in range(40):
            model.observe("brightness", 0.9 if number % 2 else 0.5)
            model.score(0.31, found)
        with pytest.raises(ValueError, match="expected a finite"):
            model.observe("brightness", float("nan"))
    agent = Agent(shelf)
    (alarm,) = agent.collect().alarms
    assert alarm.metric == "brightness_outside"
    assert alarm.sentence.startswith("20 of the last 40 inputs had a brightness outside 0.2 to 0.8")
    assert counts(agent)["low_confidence"] == (40, 0.0)
    assert counts(agent)["brightness"][0] == 40


def test_wherever_it_dies_no_input_counts_twice(shelf: Shelf) -> None:
    for left in range(24):
        for path in (shelf.layout.drift, shelf.layout.telemetry):
            path.unlink(missing_ok=True)
        answer_quickly(shelf, 7)
        try:
            Agent(shelf, Mortal(left)).collect()
        except Dies:
            pass
        Agent(shelf).collect()
        kept = json.loads(shelf.layout.drift.read_bytes()) if shelf.layout.drift.exists() else {}
        seen = [w["evidence"]["seen"] for w in kept.get("watched", [])]
        assert seen in ([], [7]), left


def test_damaged_evidence_is_begun_anew(shelf: Shelf) -> None:
    path = shelf.layout.drift
    path.parent.mkdir()
    for raw in (b"", b"[]", b'{"watched": [{}], "alarms": []}', b'{"watched": 7}'):
        path.write_bytes(raw)
        answer_quickly(shelf, 30)
        drift = Agent(shelf).collect()
        assert len(drift.alarms) == 1
        drift.told(drift.alarms)


def test_the_server_hears_of_it_once(device: Device, registry: Registry) -> None:
    from pilotwave_agent.commands.once import once

    files = {**example("1.0.0"), "reference.json": REFERENCE.to_bytes()}
    registry.order(registry.publish("detector", "1.0.0", files=files))
    assert once(device.config, device.config_path) is None
    answer_quickly(Shelf(device.layout.root), 40)
    for _ in range(3):
        assert once(device.config, device.config_path) is None
    events = {e.id: e for c in registry.check_ins for e in c.events if e.kind == "drifted"}
    (event,) = events.values()
    assert (event.model, event.version, event.reason) == ("detector", "1.0.0", "low_confidence")
    assert event.detail is not None
    assert event.detail.startswith("40 of the last 40 inputs had a confidence below 0.6;")
    metrics = {m.metric for c in registry.check_ins for m in c.metrics}
    assert {"low_confidence", "top_class"} <= metrics


@pytest.mark.parametrize("reasons", [("drift",), ("uniform",)])
def test_while_inputs_drift_unsure_ones_are_captured_where_the_owner_wants_them(
    shelf: Shelf, device: Device, reasons: tuple[str, ...]
) -> None:
    key = X25519PrivateKey.generate()
    settings = CaptureSettings(public_hex(key), reasons, share=0.0)
    config = replace(device.config, data_dir=shelf.data, capture=settings)
    captures = Captures(config, identity_of(device.layout), Disk())
    tell_applications(config, shelf.layout, identity_of(device.layout), Disk())

    def met() -> list[Path]:
        answer(shelf, [UNSURE] * 2 + [SURE] * 3)
        return sorted((shelf.layout.live / "detector").glob("*.case"))

    assert met() == []
    answer_quickly(shelf, 40)
    drift = Agent(shelf).collect()
    captures.tell_drift(drift.drifting(WALL + 3600))
    found = met()
    if reasons == ("uniform",):
        assert (found, shelf.layout.drifting.exists()) == ([], False)
        return
    cases = [parse_case(*split_case(path.read_bytes())) for path in found]
    assert [(c.reason, c.version) for c in cases] == [("drift", "1.1.0")] * 2
    captures.tell_drift(drift.drifting(WALL + 2 * QUIET_S))
    assert not shelf.layout.drifting.exists()
    assert met() == found
    for raw in (b"", b"[]", b'{"schema": "x"}', b'{"schema": "pilotwave/drifting/1"}'):
        shelf.layout.drifting.write_bytes(raw)
        assert met() == found


def test_other_languages_send_confidence_and_numbers_through_the_socket(shelf: Shelf) -> None:
    mailbox = Mailbox(shelf.layout.live, "")
    try:
        said = {"schema": "pilotwave/sample/1", "model": "detector", "version": "1.1.0"}
        send(
            shelf.layout.live,
            {**said, "numbers": {"confidence": [0.5] * 30, "brightness": [0.5, 0.9]}},
        )
        send(shelf.layout.live, {**said, "version": "1.7.0", "numbers": {"confidence": 0.1}})
        mailbox.empty()
        mailbox.flush()
    finally:
        mailbox.close()
    agent = Agent(shelf)
    (alarm,) = agent.collect().alarms
    assert alarm.sentence.startswith("30 of the last 30 inputs had a confidence below 0.6;")
    found = counts(agent)
    assert found["low_confidence"] == (30, 30.0)
    assert found["brightness_outside"] == (2, 1.0)
