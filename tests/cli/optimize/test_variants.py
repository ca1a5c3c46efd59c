"""What one run makes: each variant opened, judged, measured and described."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from pilotwave_cli.optimize.recipes import SUMS_IN_32_BITS
from pilotwave_cli.optimize.report import State, read_report
from pilotwave_protocol.reference import parse_reference
from tests.cli.optimize import nets
from tests.cli.optimize.conftest import Made, run_in

pytestmark = pytest.mark.timeout(300)  # the first of them waits for the run


def test_each_tool_made_its_variant(made: Made) -> None:
    for name in ("onnx-fp32", "onnx-int8", "onnx-fp16", "openvino-fp16"):
        row = made.row(name)
        assert row.state is State.ACCEPTED, row.why
        assert row.files is not None
        files = (made.folder / row.files.folder).iterdir()
        beside = {row.files.cases, "reference.json"}
        assert sum(f.stat().st_size for f in files if f.name not in beside) == row.figures.bytes
        assert row.figures.loss_bound is not None
        assert float(row.figures.loss_bound) <= 0.02
        assert float(row.figures.p05_ms or 0) > 0
        assert float(row.figures.peak_mb or 0) > 10


def test_tool_that_cannot_start_is_a_row(made: Made) -> None:
    row = made.row("litert-fp32")
    assert row.state is State.FAILED
    assert row.why == (
        "it needs --onnx2tf-python: the path of a Python 3.12 or later that has onnx2tf"
    )
    assert "litert-fp32: failed: it needs" in made.done.stderr


def test_openvino_has_both_of_its_files(made: Made) -> None:
    row = made.row("openvino-fp16")
    assert (row.runtime, row.format, row.precision) == ("openvino", "openvino-ir", "fp16")
    files = {p.name for p in (made.folder / "openvino-fp16").iterdir()}
    assert files == {"model.xml", "model.bin", "selftest.safetensors", "reference.json"}


def test_each_variant_has_a_reference_of_its_own_answers(made: Made) -> None:
    for name in ("onnx-fp32", "onnx-int8"):
        row = made.row(name)
        reference = parse_reference((made.folder / name / "reference.json").read_bytes())
        assert reference.inputs == row.figures.rows
        assert reference.confidence is not None
        assert reference.confidence.output == "probs"
        assert row.files is not None
        assert "reference.json" in row.files.digests


def test_source_in_one_file_is_kept_byte_for_byte(made: Made) -> None:
    raw = (made.folder / "onnx-fp32" / "model.onnx").read_bytes()
    assert raw == (made.folder.parent / "model.onnx").read_bytes()


def test_one_scale_for_all_filters_is_refused_and_one_for_each_is_not(made: Made) -> None:
    row = made.row("per-tensor")
    assert row.state is State.REFUSED
    assert "inputs are wrong and were right before" in row.why
    assert float(row.figures.top1 or 1) < 0.5
    assert float(made.row("onnx-int8").figures.top1 or 0) > 0.95
    assert not (made.folder / "per-tensor").exists()


def test_weights_are_signed_per_channel_and_what_flows_is_unsigned(made: Made) -> None:
    model = onnx.load(made.folder / "onnx-int8" / "model.onnx")
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    flowing = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert {constants[n.input[2]].dtype for n in flowing} == {np.dtype(np.uint8)}
    (depthwise,) = (n for n in model.graph.node if n.op_type == "Conv" and _groups(n) == 2)
    weights = next(n for n in model.graph.node if depthwise.input[1] in n.output)
    assert weights.op_type == "DequantizeLinear"
    assert constants[weights.input[0]].dtype == np.int8
    assert constants[weights.input[1]].shape == (2,)


def _groups(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def test_no_variant_imports_an_opset_that_it_does_not_use(made: Made) -> None:
    for name in ("onnx-int8", "onnx-fp16"):
        model = onnx.load(made.folder / name / "model.onnx")
        assert [o.domain for o in model.opset_import] == [""], name
        assert made.row(name).runtime_version == ">=1.16"


def test_u8s8_asks_for_a_processor_that_does_not_saturate(made: Made) -> None:
    assert made.row("onnx-int8").requires.cpu_any == SUMS_IN_32_BITS
    assert made.row("per-tensor").requires.cpu_any == SUMS_IN_32_BITS
    assert made.row("onnx-fp16").requires.cpu_any == ()


def test_golden_cases_are_the_variants_own(made: Made) -> None:
    cases = {
        name: load_file(made.folder / name / "selftest.safetensors")
        for name in ("onnx-fp32", "onnx-int8")
    }
    for name, found in cases.items():
        row = made.row(name)
        assert found["input.x"].shape == (64, 64)
        assert found["output.probs"].shape == (64, 10)
        assert row.files is not None
        assert row.files.cases == "selftest.safetensors"
    assert not np.array_equal(
        cases["onnx-fp32"]["output.probs"], cases["onnx-int8"]["output.probs"]
    )
    fp32, int8 = made.row("onnx-fp32").files, made.row("onnx-int8").files
    assert fp32 is not None
    assert int8 is not None
    assert (fp32.atol, fp32.min_agreement) == ("0.001", None)
    assert float(int8.atol) > 0.001
    assert int8.min_agreement == "0.95"


def test_golden_cases_show_several_classes(made: Made) -> None:
    answers = load_file(made.folder / "onnx-int8" / "selftest.safetensors")["output.probs"]
    assert len(set(answers.argmax(axis=1).tolist())) == 10


def test_the_publishers_own_variant_is_judged_by_the_same_data(made: Made) -> None:
    row = made.row("plain")
    assert row.state is State.ACCEPTED
    assert row.precision == "fp32"
    assert row.figures.rows == made.row("onnx-int8").figures.rows == 499


def test_the_report_says_where_it_comes_from(made: Made) -> None:
    report = made.report
    assert report.source.file == "model.onnx"
    assert report.labelled
    assert report.calibration.rows == nets.CALIBRATION_ROWS
    assert report.tools.keys() >= {"onnx", "onnxruntime", "openvino"}
    assert report.machine.arch
    assert all(flag.startswith("cpu.") for flag in report.machine.flags)


def test_each_step_is_told_and_the_table_is_printed(made: Made) -> None:
    for line in (
        "onnx-int8: made in",
        "onnx-int8: accepted",
        "per-tensor: refused",
        "round 3 of 3",
    ):
        assert line in made.done.stderr
    table = (made.folder / "report.txt").read_text()
    assert "per-tensor" in table
    assert table.splitlines()[1] in made.done.stdout
    assert "with 95% confidence, of 499 labelled inputs" in table


def test_nothing_else_is_left(made: Made) -> None:
    accepted = {row.name for row in made.report.accepted}
    assert {p.name for p in made.folder.iterdir()} == {"report.json", "report.txt", *accepted}
    beside = {p.name for p in made.folder.parent.iterdir()}
    assert beside == {"variants", "model.onnx", "tensor.onnx", "cal.npz", "test.npz"}


def test_numbers_are_texts(made: Made) -> None:
    written = json.loads((made.folder / "report.json").read_bytes())
    assert written["guard"] == {"max_loss": "0.02", "confidence": "0.95"}


def test_data_of_more_bytes_than_a_self_test_writes(tmp_path: Path) -> None:
    size, rows = 256, 300
    images, labels = (array[:rows] for array in nets.digits())
    large = np.kron(images.reshape(-1, 1, 8, 8), np.ones((1, 1, size // 8, size // 8), np.float32))
    assert large.nbytes > 64 << 20
    np.savez(tmp_path / "cal.npz", image=large[:100])
    np.savez(tmp_path / "test.npz", image=large, labels=labels)
    model = nets.write_large_images(tmp_path / "model.onnx", size)
    done = run_in(tmp_path, model, "--max-loss", "2%", "--only", "onnx-fp32")
    assert done.returncode == 0, done.stderr
    assert [row.state for row in read_report(tmp_path / "variants").rows] == [State.ACCEPTED]
