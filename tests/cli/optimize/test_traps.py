"""What tools were seen to do wrong with real models, each shown on a model made small."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from packaging.specifiers import SpecifierSet

from pilotwave_cli.optimize.report import Report, State, read_report
from pilotwave_protocol import sniff
from tests.cli.optimize import nets
from tests.cli.optimize.conftest import quantise, run_in

pytestmark = pytest.mark.timeout(300)


def optimized(folder: Path, model: Path, *words: object) -> Report:
    """Run the command on a model, in a folder with data."""
    nets.write_data(folder)
    done = run_in(folder, model, "--max-loss", "2%", *words)
    assert done.returncode == 0, done.stderr
    return read_report(folder / "variants")


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


def test_import_that_no_node_uses_does_not_keep_older_runtimes_out(tmp_path: Path) -> None:
    """ONNX Runtime refuses a file that names a newer version of a domain than it knows, used or
    not; 1.18 is the first that knows version 5 of this one."""
    model = nets.write_with_import(tmp_path / "model.onnx", "ai.onnx.ml", 5)
    assert sniff.sniff_file(model).runtime_version == ">=1.18"
    made = ("onnx-fp32", "onnx-int8", "onnx-fp16")
    report = optimized(tmp_path, model, *only(*made))
    assert {row.name for row in report.accepted} == set(made)
    for row in report.rows:
        file = onnx.load(tmp_path / "variants" / row.name / "model.onnx")
        assert [o.domain for o in file.opset_import] == [""], row.name
        assert "1.16.3" in SpecifierSet(row.runtime_version or "==0"), row.name


def test_model_on_which_symbolic_shape_inference_raises(tmp_path: Path) -> None:
    """It is quantised, and prepared for that before."""
    model = nets.write_with_sizes_by_floats(tmp_path / "model.onnx")
    report = optimized(tmp_path, model, *only("onnx-fp32", "onnx-int8"))
    assert {row.name for row in report.accepted} == {"onnx-fp32", "onnx-int8"}
    file = onnx.load(tmp_path / "variants" / "onnx-int8" / "model.onnx")
    kinds = {node.op_type for node in file.graph.node}
    assert "QuantizeLinear" in kinds
    assert "Identity" not in kinds


@pytest.mark.needs("torch")  # it brings sympy, without which symbolic inference always raises
def test_symbolic_shape_inference_raises_on_it(tmp_path: Path) -> None:
    model = nets.write_with_sizes_by_floats(tmp_path / "model.onnx")
    assert _infer(nets.MODEL, tmp_path).returncode == 0
    assert "Incomplete symbolic shape inference" in _infer(model, tmp_path).stderr


def _infer(model: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", _INFER, str(model)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


_INFER = """
import sys
import onnx
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
SymbolicShapeInference.infer_shapes(onnx.load(sys.argv[1]))
"""


@pytest.mark.parametrize("shape", [[1, 10], [1], [1, 1], []])
def test_bias_that_is_broadcast(tmp_path: Path, shape: list[int]) -> None:
    """ONNX Runtime takes one bias for each channel for granted, and dies of others; Magika's has
    the first of these shapes."""
    model = nets.write_with_bias(tmp_path / "model.onnx", shape)
    report = optimized(tmp_path, model, *only("onnx-fp32", "onnx-int8"))
    (row,) = (row for row in report.rows if row.name == "onnx-int8")
    assert row.state is State.ACCEPTED, row.why


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere S8S8 may be the quicker one")
def test_s8s8_that_is_slower_never_stands_before_fp32(tmp_path: Path) -> None:
    """By what is measured here, of a real file whose answers are as good."""
    nets.write_data(tmp_path)
    model = nets.write_residual(tmp_path / "model.onnx")
    quantise(model, tmp_path / "s8s8.onnx", flowing="QInt8")
    report = optimized(tmp_path, model, *only("onnx-fp32"), "--also", "s8s8=s8s8.onnx")
    found = {row.name: row for row in report.rows}
    assert found["s8s8"].state is State.ACCEPTED, found["s8s8"].why
    assert [row.name for row in report.rows] == ["onnx-fp32", "s8s8"]
