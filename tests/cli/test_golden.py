"""`pilotwave golden` writes cases that the device's own self-test accepts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator

CASES = "selftest.safetensors"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """The digits model without its cases."""
    folder = tmp_path / "v"
    folder.mkdir()
    shutil.copy(DIGITS / "1.0.0" / "model.onnx", folder)
    return folder


def images(count: int, kind: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).random((count, 64)).astype(kind)


@pytest.mark.parametrize("form", ["npz", "npy", "safetensors"])
def test_written_cases_are_published_and_pass_here(
    pw: Operator, model: str, digits: Path, tmp_path: Path, form: str
) -> None:
    data = tmp_path / f"data.{form}"
    match form:
        case "npz":
            np.savez(data, x=images(5))
        case "npy":
            np.save(data, images(5))
        case _:
            save_file({"x": images(5)}, data)
    said = pw("golden", digits / "model.onnx", "--inputs", data)
    assert f"wrote 5 cases to {digits / CASES}" in said
    made = load_file(digits / CASES)
    assert made["input.x"].shape == (5, 64)
    assert made["output.probs"].shape == (5, 10)
    assert np.allclose(made["output.probs"].sum(axis=1), 1, atol=1e-4)
    said = pw("publish", model, "1.0.0", "--variant", f"onnx={digits}", "--yes")
    assert "self-test" in said
    assert "no self-test" not in said


def test_cases_of_another_model_are_replaced_and_few_are_enough(
    pw: Operator, digits: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", x=images(9))
    pw("golden", digits, "--inputs", tmp_path / "a.npz", "--limit", 3)
    first = (digits / CASES).read_bytes()
    assert load_file(digits / CASES)["input.x"].shape == (3, 64)
    (digits / CASES).write_bytes(b"damaged")
    assert "wrote 1 case to" in pw("golden", digits, "--inputs", tmp_path / "a.npz", "--limit", 1)
    assert (digits / CASES).read_bytes() != first


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": images(2)}, "the model takes x; the file has y"),
        ({"x": images(2, "float64")}, "expected float32; got float64: save it with .astype"),
        ({"x": images(0)}, "expected one case or more"),
        ({"x": images(2)[:, :60]}, "60"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_was_expected(
    pw: Operator, digits: Path, tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    assert said in pw.fails("golden", digits, "--inputs", tmp_path / "data.npz", status=2)
    assert not (digits / CASES).exists()


def test_answers_that_are_no_numbers_are_told(pw: Operator, digits: Path, tmp_path: Path) -> None:
    some = images(3)
    some[1] = np.nan
    np.savez(tmp_path / "data.npz", x=some)
    done = pw.run("golden", digits, "--inputs", tmp_path / "data.npz")
    assert done.returncode == 0, done.stderr
    assert "the answers to 1 of them hold NaN or infinity" in done.stderr


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04damaged", b"{}"])
def test_a_file_of_no_inputs_is_refused(
    pw: Operator, digits: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    line = pw.fails("golden", digits, "--inputs", tmp_path / "data.npz", status=2)
    assert "expected .npz, .npy or .safetensors" in line
    assert "Traceback" not in line


def test_pickled_arrays_are_not_opened(pw: Operator, digits: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.array([{"a": 1}], object))
    line = pw.fails("golden", digits, "--inputs", tmp_path / "data.npz", status=2)
    assert "expected .npz, .npy or .safetensors" in line


def test_scalars_and_texts_are_written_as_devices_read_them(
    pw: Operator, model: str, tmp_path: Path
) -> None:
    """A model of one text a case: JSON holds it, as safetensors cannot."""
    folder = tmp_path / "v"
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["t"])],
        "g",
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["N"])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    np.savez(tmp_path / "data.npz", s=np.array(["ja", "nein", "größer"]))
    pw("golden", folder, "--inputs", tmp_path / "data.npz")
    told = json.loads((folder / "selftest.json").read_text())["tensors"]
    assert told["output.t"]["data"] == ["ja", "nein", "größer"]
    pw("publish", model, "1.0.0", "--variant", f"onnx={folder}", "--yes")


def test_what_the_model_answers_differently_each_time_is_said(pw: Operator, tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    graph = helper.make_graph(
        [
            helper.make_node("RandomNormalLike", ["x"], ["r"]),
            helper.make_node("Add", ["x", "r"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((4, 2), np.float32))
    done = pw.run("golden", folder, "--inputs", tmp_path / "data.npz")
    assert done.returncode == 0, done.stderr
    assert "two runs of one input differ by up to" in done.stderr
