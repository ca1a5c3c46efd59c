"""Bad models and data: one sentence each, before anything is made, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pilotwave_cli.optimize.report import read_report
from tests.cli.optimize import nets
from tests.cli.optimize.conftest import Run

IMAGES, LABELS = nets.digits()
IMAGES, LABELS = IMAGES[:400], LABELS[:400]


def sentence(tmp_path: Path, run: Run, model: Path, *words: object) -> str:
    """Run what must be refused; return the last line of what it says."""
    before = set(tmp_path.iterdir())
    done = run(model, *words)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert set(tmp_path.iterdir()) == before
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("pilotwave: ")
    return line


def with_nan() -> np.ndarray:
    found = IMAGES.copy()
    found[3, 5] = np.nan
    return found


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": with_nan(), "labels": LABELS}, "x: 1 row holds NaN or infinity: leave them out"),
        ({"x": IMAGES[:, :60], "labels": LABELS}, "takes [?, 64]; a row of the file has [60]"),
        ({"x": IMAGES.astype(np.float64), "labels": LABELS}, 'save it with .astype("float32")'),
        ({"y": IMAGES, "labels": LABELS}, "the model takes x; the file has y"),
        ({"x": IMAGES, "labels": LABELS[:0]}, "labels: expected 400, as there are inputs; got 0"),
        ({"x": IMAGES, "labels": LABELS * 0 + 3}, "labels: all are 3"),
        ({"x": IMAGES, "labels": LABELS.astype(np.float32)}, "integers of shape [400]; got"),
        ({"x": IMAGES[:0], "labels": LABELS[:0]}, "expected as many rows in each array"),
        ({"labels": LABELS}, "an array for each input, by its name; there is none"),
        ({"x": IMAGES[:200], "labels": LABELS[:200]},
         "200 labelled inputs are too few to show a loss of at most 1%: expected 299 or more"),
        ({"x": IMAGES[200:]}, "200 inputs are too few"),
    ],
)  # fmt: skip
def test_data_that_cannot_judge(
    tmp_path: Path, optimize: Run, arrays: dict[str, np.ndarray], said: str
) -> None:
    nets.write_data(tmp_path)
    np.savez(tmp_path / "test.npz", **arrays)
    assert said in sentence(tmp_path, optimize, nets.MODEL)


def test_calibration_of_another_shape(tmp_path: Path, optimize: Run) -> None:
    nets.write_data(tmp_path)
    np.savez(tmp_path / "cal.npz", x=IMAGES.reshape(-1, 8, 8))
    line = sentence(tmp_path, optimize, nets.MODEL)
    assert "cal.npz: x: the model takes [?, 64]; a row of the file has [8, 8]" in line


def test_data_to_calibrate_and_to_judge_are_not_the_same(tmp_path: Path, optimize: Run) -> None:
    nets.write_data(tmp_path)
    (tmp_path / "cal.npz").write_bytes((tmp_path / "test.npz").read_bytes())
    assert "judged by other inputs" in sentence(tmp_path, optimize, nets.MODEL)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04damaged", b"{}"])
def test_files_of_no_data(tmp_path: Path, optimize: Run, content: bytes) -> None:
    nets.write_data(tmp_path)
    (tmp_path / "test.npz").write_bytes(content)
    assert "expected .npz" in sentence(tmp_path, optimize, nets.MODEL)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS + 1, "expected numbers from 0 to 9, as probs has 10 classes; got 10"),
        (LABELS - 1, "got -1"),
        ((LABELS + 1) % 10, "no more than by chance"),
    ],
)
def test_labels_of_another_order(
    tmp_path: Path, optimize: Run, labels: np.ndarray, said: str
) -> None:
    nets.write_data(tmp_path, x=IMAGES, labels=labels)
    assert said in sentence(tmp_path, optimize, nets.MODEL)


def test_operator_that_no_runtime_has(tmp_path: Path, optimize: Run) -> None:
    nets.write_data(tmp_path)
    line = sentence(tmp_path, optimize, nets.write_custom(tmp_path / "model.onnx"))
    assert "the source model cannot be judged: it does not run in onnxruntime" in line
    assert "Secret" in line


def test_model_of_any_size_is_judged_at_the_datas_and_that_is_said(
    tmp_path: Path, optimize: Run
) -> None:
    model = nets.write_any_size(tmp_path / "model.onnx")
    images, labels = nets.digits()
    images = images.reshape(-1, 1, 8, 8)
    np.savez(tmp_path / "cal.npz", image=images[:200])
    np.savez(tmp_path / "test.npz", image=images[200:], labels=labels[200:])
    done = optimize(model, "--max-loss", "2%", "--only", "onnx-int8", "--only", "openvino-fp16")
    assert done.returncode == 0, done.stderr
    assert "image: the model takes [1, ?, ?]; its variants are judged at [1, 8, 8] alone" in (
        done.stderr
    )
    accepted = {row.name for row in read_report(tmp_path / "variants").accepted}
    assert accepted == {"onnx-int8", "openvino-fp16"}


def test_size_that_the_model_says_it_takes_and_does_not(tmp_path: Path, optimize: Run) -> None:
    model = onnx.load(nets.MODEL)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "features"
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "cal.npz", x=IMAGES[:200, :60])
    np.savez(tmp_path / "test.npz", x=IMAGES[:, :60], labels=LABELS)
    line = sentence(tmp_path, optimize, tmp_path / "model.onnx")
    assert "the source model cannot be judged: it does not run in onnxruntime" in line


def test_model_of_no_classes(tmp_path: Path, optimize: Run) -> None:
    """A detector's boxes have no class to compare."""
    nets.write_data(tmp_path)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])
    boxes = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 64])
    graph = helper.make_graph(
        [helper.make_node("Unsqueeze", ["x", "two"], ["boxes"])],
        "boxes",
        [x],
        [boxes],
        [helper.make_tensor("two", TensorProto.INT64, [1], [2])],
    )
    del boxes.type.tensor_type.shape.dim[:]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    line = sentence(tmp_path, optimize, tmp_path / "model.onnx")
    assert "expected one output of shape [rows, classes]; the model has boxes [499, 64, 1]" in line


def test_weights_beyond_what_a_file_can_hold(tmp_path: Path, optimize: Run) -> None:
    """2.2 GB of weights in a file beside the model; it is sparse."""
    nets.write_data(tmp_path)
    model = onnx.load(nets.MODEL)
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    told = {"location": "weights.bin", "offset": "0", "length": str(64 * 64 * 4)}
    for key, value in told.items():
        weights.external_data.add(key=key, value=value)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    line = sentence(tmp_path, optimize, tmp_path / "model.onnx")
    assert "reads its weights from weights.bin, which is not there" in line
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(2_200_000_000)
    line = sentence(tmp_path, optimize, tmp_path / "model.onnx")
    assert "is 2.2 GB with its weights" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-loss", "lots"], "--max-loss: expected a share such as 1% or 0.01; got lots"),
        (["--max-loss", "0"], "--max-loss: expected a share"),
        (["--only", "onnx-int3"], "--only: expected one of onnx-fp32"),
        (["--also", "small"], "--also: expected NAME=FILE"),
        (["--also", "onnx-int8=x.onnx"], "--also: onnx-int8 is made here; choose another name"),
        (["--also", "../up=x.onnx"], "variant name"),
        (["--also", "small=x.onnx"], "--also small: x.onnx: no such file or folder"),
    ],
)
def test_words_that_mean_nothing(
    tmp_path: Path, optimize: Run, words: list[Any], said: str
) -> None:
    nets.write_data(tmp_path)
    assert said in sentence(tmp_path, optimize, nets.MODEL, *words)


def test_nothing_is_overwritten(tmp_path: Path, optimize: Run) -> None:
    nets.write_data(tmp_path)
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants" / "mine").write_text("mine")
    assert "--out variants: is there already" in sentence(tmp_path, optimize, nets.MODEL)
    assert (tmp_path / "variants" / "mine").read_text() == "mine"


def test_quantised_source(tmp_path: Path, optimize: Run) -> None:
    nets.write_data(tmp_path)
    line = sentence(tmp_path, optimize, nets.MODEL.parent / "selftest.safetensors")
    assert "expected an ONNX model" in line
