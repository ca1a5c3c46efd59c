"""The desk runs the device's self-test: what devices would refuse is never signed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from tests.agent.runtimes.samples import lay_out
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator


def _refused(pw: Operator, model: str, folder: Path) -> str:
    words = ("publish", model, "1.0.0", "--variant", f"onnx={folder}")
    said = pw.fails(*words, status=2)
    assert "--no-try" in said
    assert pw.json("versions", "list", model) == []
    pw(*words, "--no-try")
    return said


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("faulty_wrong.onnx", "selftest_mismatch"),
        ("faulty_nan.onnx", "selftest_nonfinite"),
        ("faulty_shape.onnx", "selftest_schema"),
        ("faulty_customop.onnx", "selftest_operator"),
    ],
)
def test_what_every_device_would_refuse_stays_here(
    pw: Operator, model: str, tmp_path: Path, file: str, reason: str
) -> None:
    lay_out(tmp_path / "v", file)
    said = _refused(pw, model, tmp_path / "v")
    assert reason in said
    assert "stage" not in said
    golden = f"`pilotwave golden {tmp_path / 'v'} --inputs data.npz`" in said
    assert golden is (reason == "selftest_mismatch")


def test_external_data_that_is_cut_off_stays_here(pw: Operator, model: str, tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    w = np.ones((4, 3), np.float32)
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k])
        for n, k in (("x", 4), ("y", 3))
    ]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [product], "g", ports[:1], ports[1:], [numpy_helper.from_array(w, "w")]
    )
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(
        made, folder / "model.onnx", save_as_external_data=True, location="w.data", size_threshold=0
    )
    x = np.ones((1, 4), np.float32)
    save_file({"input.x": x, "output.y": x @ w}, folder / "selftest.safetensors")
    (folder / "w.data").write_bytes((folder / "w.data").read_bytes()[:20])
    # no runtime is needed to see it, so that it is refused untried too
    for more in ((), ("--no-try",)):
        words = ("publish", model, "1.0.0", "--variant", f"onnx={folder}", *more)
        said = pw.fails(*words, status=2)
        assert "model.onnx needs 48 bytes of w.data, which has 20: it is cut off" in said
    assert pw.json("versions", "list", model) == []


def test_a_good_model_is_tried_and_published(pw: Operator, model: str) -> None:
    done = pw.run("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    assert done.returncode == 0
    assert "not tried" not in done.stderr


def test_a_single_file_is_tried_where_it_lies(pw: Operator, model: str, tmp_path: Path) -> None:
    file = shutil.copy(DIGITS / "1.0.0" / "model.onnx", tmp_path / "m.onnx")
    done = pw.run("publish", model, "1.0.0", "--variant", f"onnx={file}")
    assert done.returncode == 0, done.stderr
    assert "not tried" not in done.stderr
