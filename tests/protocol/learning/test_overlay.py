"""An overlay as a file, and what answers are with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.device_plan import Kind, Scores
from pilotwave_protocol.learning.overlaid import Overlaid
from pilotwave_protocol.learning.overlay import Overlay, file_name, read_overlay
from pilotwave_protocol.learning.statistics import with_ones, write_numbers

HEAD = np.random.default_rng(2).normal(size=(5, 3))
ABOUT = Overlay(
    model="detector",
    version="1.0.0",
    sha256="a" * 64,
    variant="onnx-fp32",
    plan="b" * 64,
    embedding="active",
    scores=Scores("probs", Kind.PROBABILITIES),
    features=4,
    classes=3,
    clip="2",
    distance="3.1",
    since=datetime(2026, 11, 30, tzinfo=timezone.utc),
    examples=40,
    held_out=20,
    better=12,
    worse=0,
    gain="0.135",
    numbers="",
)


def written(about: Overlay = ABOUT, head: np.ndarray = HEAD) -> tuple[bytes, str]:
    raw = about.to_file(write_numbers(head))
    return raw, file_name(sha256_hex(raw))


def softmax(z: np.ndarray) -> np.ndarray:
    exp = np.exp(z - z.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def test_a_file_reads_and_writes_back_the_same() -> None:
    raw, name = written()
    about, numbers = read_overlay(raw, name)
    assert about.to_file(numbers) == raw
    assert file_name(about.digest) == name
    assert about.is_for("detector", "a" * 64, "onnx-fp32")
    assert not about.is_for("detector", "a" * 64, "onnx-int8")
    assert not about.is_for("detector", "c" * 64, "onnx-fp32")


def test_a_file_that_was_changed_anywhere_is_refused() -> None:
    raw, name = written()
    for place in range(0, len(raw), 7):
        bent = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        with pytest.raises(BadMessage):
            read_overlay(bent, name)
    with pytest.raises(BadMessage):
        read_overlay(raw[:-4], name)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}\n",
        written(replace(ABOUT, features=5))[0],
        ABOUT.to_file(write_numbers(HEAD * np.inf)),
        written()[0] + b"more",
        written()[0].replace(b'"clip"', b'"cut"', 1),
    ],
    ids=["empty", "nothing said", "another shape", "no numbers", "more", "unknown field"],
)
def test_what_is_named_rightly_and_is_no_overlay_is_refused(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        Overlaid.from_file(raw, file_name(sha256_hex(raw)))


@pytest.mark.parametrize("kind", list(Kind))
def test_an_answer_is_the_versions_scores_and_the_embeddings_part(kind: Kind) -> None:
    overlay = Overlaid.from_file(*written(replace(ABOUT, scores=Scores("probs", kind))))
    random = np.random.default_rng(1)
    e, z = random.normal(size=(6, 4)), random.normal(size=(6, 3))
    e[0] *= 0.1  # shorter than the clip: it counts as it is
    cut = e * np.minimum(1, 2 / np.linalg.norm(e, axis=1, keepdims=True))
    wanted = z + with_ones(cut) @ HEAD
    given = z if kind is Kind.LOGITS else softmax(z)
    outputs = {"active": e.astype(np.float32), "probs": given.astype(np.float32), "more": "x"}
    found = overlay.answer(outputs)
    assert found is not None
    np.testing.assert_allclose(
        found["probs"], wanted if kind is Kind.LOGITS else softmax(wanted), atol=1e-5
    )
    assert found["probs"].dtype == np.float32
    assert (found["more"], found["active"]) == ("x", outputs["active"])
    np.testing.assert_array_equal(outputs["probs"], given.astype(np.float32))  # not changed


def test_a_class_that_the_version_rules_out_is_a_number_still() -> None:
    overlay = Overlaid.from_file(*written())
    sure = np.array([[0.0, 0.0, 1.0]], np.float32)
    found = overlay.answer({"active": np.zeros((1, 4), np.float32), "probs": sure})
    assert found is not None
    assert np.isfinite(found["probs"]).all()


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"active": np.zeros((1, 4), np.float32)},
        {"active": np.zeros((1, 5), np.float32), "probs": np.ones((1, 3), np.float32)},
        {"active": np.zeros((2, 4), np.float32), "probs": np.ones((1, 3), np.float32)},
        {"active": np.zeros((1, 4), np.float32), "probs": np.ones(3, np.float32)},
        {"active": np.zeros((1, 4), np.float32), "probs": np.ones((1, 3), np.int8)},
        {"active": np.full((1, 4), np.nan, np.float32), "probs": np.ones((1, 3), np.float32)},
    ],
)
def test_outputs_that_it_was_not_made_for_are_left_alone(outputs: dict[str, np.ndarray]) -> None:
    assert Overlaid.from_file(*written()).answer(outputs) is None
