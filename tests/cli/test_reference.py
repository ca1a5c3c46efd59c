"""`pilotwave reference` writes what devices notice drift by, and publish looks at it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pilotwave_protocol.reference import Reference, parse_reference
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = tmp_path / "v"
    folder.mkdir()
    shutil.copy(DIGITS / "1.0.0" / "model.onnx", folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    held_out = load_file(DIGITS / "held_out.safetensors")
    path = tmp_path / "images.npz"
    np.savez(path, x=held_out["clean"].astype(np.float32) / 16)
    return path


def read(folder: Path) -> Reference:
    return parse_reference((folder / "reference.json").read_bytes())


def test_reference_of_real_answers_is_signed_with_the_variant(
    pw: Operator, model: str, digits: Path, images: Path
) -> None:
    said = pw("reference", digits, "--inputs", images)
    made = read(digits)
    assert f"of {made.inputs} inputs: at most" in said
    assert made.confidence is not None
    assert (made.confidence.output, made.confidence.logits) == ("probs", False)
    assert 0.05 <= made.confidence.low / made.inputs <= 0.1
    assert len(made.classes) == 10
    assert sum(made.classes) == made.inputs
    pw("publish", model, "1.0.0", "--variant", f"onnx={digits}", "--yes")
    shown = pw.json("versions", "show", model, "1.0.0")
    files = [file["path"] for variant in shown["variants"] for file in variant["files"]]
    assert "reference.json" in files


def test_what_the_application_observes_has_edges_and_its_score_is_the_confidence(
    pw: Operator, digits: Path, images: Path, tmp_path: Path
) -> None:
    rows = len(np.load(images)["x"])
    brightness = np.linspace(0, 1, rows)
    np.savez(tmp_path / "seen.npz", brightness=brightness, score=brightness / 2)
    pw("reference", digits / "model.onnx", "--inputs", images, "--observed", tmp_path / "seen.npz")
    made = read(digits)
    assert made.confidence is not None
    assert made.confidence.output is None
    assert made.confidence.below == pytest.approx(0.05, abs=0.005)
    edges = made.numbers["brightness"]
    assert (edges.low, edges.high) == pytest.approx((0.01, 0.99), abs=0.01)
    assert 0 < edges.outside <= rows * 0.02 + 2


def test_too_few_inputs_and_numbers_that_are_none_are_refused(
    pw: Operator, digits: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.npz"
    np.savez(few, x=np.zeros((99, 64), np.float32))
    said = pw.fails("reference", digits, "--inputs", few, status=2)
    assert "expected 100 inputs or more for a reference; got 99" in said
    many, seen = tmp_path / "many.npz", tmp_path / "seen.npz"
    np.savez(many, x=np.zeros((100, 64), np.float32))
    np.savez(seen, brightness=np.zeros((100, 2)))
    said = pw.fails("reference", digits, "--inputs", many, "--observed", seen, status=2)
    assert "brightness: expected one finite number for each input" in said
    assert not (digits / "reference.json").exists()


def test_publish_refuses_a_reference_that_no_device_could_use(
    pw: Operator, model: str, digits: Path, images: Path
) -> None:
    pw("reference", digits, "--inputs", images)
    path = digits / "reference.json"
    good = json.loads(path.read_bytes())
    words = ("publish", model, "1.0.0", "--variant", f"onnx={digits}", "--yes")
    path.write_text(json.dumps({**good, "inputs": 3}))
    assert "inputs: expected a whole number from 100" in pw.fails(*words, status=2)
    path.write_text(json.dumps({**good, "confidence": {**good["confidence"], "output": "other"}}))
    assert "the model has no output other" in pw.fails(*words, status=2)
    path.write_text('{"of": "the publisher\'s own"}')
    pw(*words)
