"""The tools that install apart: NNCF, LiteRT's quantizer, onnx2tf (`make test-runtimes`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilotwave_cli.optimize.report import Row, State, read_report
from pilotwave_protocol import sniff
from tests.cli.optimize import nets
from tests.cli.optimize.conftest import Run, run_in
from tests.runtimes import ONNX2TF_PYTHON

pytestmark = pytest.mark.timeout(300)
TFLITE = Path(__file__).parents[2] / "data" / "models" / "mlp_handmade.tflite"


def rows(folder: Path, model: Path, *words: object) -> dict[str, Row]:
    """Make variants of a model in a folder with data; return the rows by name."""
    nets.write_data(folder)
    done = run_in(folder, model, "--max-loss", "2%", "--only", "onnx-fp32", *words)
    assert done.returncode == 0, done.stderr
    return {row.name: row for row in read_report(folder / "variants").rows}


@pytest.mark.needs("nncf")
def test_openvino_in_8_bits_needs_no_fact_of_the_processor(tmp_path: Path) -> None:
    model = nets.write_depthwise(tmp_path / "model.onnx")
    made = rows(tmp_path, model, "--only", "openvino-int8")["openvino-int8"]
    assert made.state is State.ACCEPTED, made.why
    assert made.requires.cpu_any == ()
    assert "int8" in {made.precision, sniff_precision(tmp_path, made)}


def sniff_precision(folder: Path, row: Row) -> str | None:
    assert row.files is not None
    return sniff.sniff_file(folder / "variants" / row.name / row.files.entrypoint).precision


@pytest.mark.needs("litert-quantizer")
@pytest.mark.needs("onnx2tf")
def test_litert_takes_and_gives_floats_in_8_bits_too(tmp_path: Path) -> None:
    words = ["--only", "litert-int8", "--only", "litert-fp32", "--onnx2tf-python", ONNX2TF_PYTHON]
    made = rows(tmp_path, nets.MODEL, *words)
    for name in ("litert-int8", "litert-fp32"):
        assert made[name].state is State.ACCEPTED, made[name].why
        found = sniff.sniff_file(tmp_path / "variants" / name / "model.tflite")
        assert {t.dtype for t in (*found.inputs, *found.outputs)} == {"float32"}
    int8, fp32 = made["litert-int8"].figures, made["litert-fp32"].figures
    assert (int8.bytes or 0) < 0.6 * (fp32.bytes or 0)


def converter(path: Path, made: bytes, status: int = 0) -> Path:
    """An interpreter whose onnx2tf writes these bytes, whatever the model is."""
    (path.parent / "made.tflite").write_bytes(made)
    lines = [
        "#!/bin/sh",
        "mkdir -p converted",
        f"cp {path.parent / 'made.tflite'} converted/model_float32.tflite",
        "echo no such layer >&2",
        f"exit {status}",
    ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("made", "status", "said"),
    [
        (TFLITE.read_bytes()[:700], 0, ""),
        (b"", 0, "the file is empty"),
        (b"no model at all", 0, ""),
        (TFLITE.read_bytes(), 3, "onnx2tf ended with status 3: no such layer"),
    ],
)
def test_broken_file_with_exit_status_0_is_a_failed_row(
    tmp_path: Path, made: bytes, status: int, said: str
) -> None:
    folder = tmp_path / "peer"
    folder.mkdir()
    python = converter(folder / "python", made, status)
    words = ["--only", "litert-fp32", "--onnx2tf-python", python]
    row = rows(tmp_path, nets.MODEL, *words)["litert-fp32"]
    assert row.state is State.FAILED
    assert row.why
    assert said in row.why
    assert not (tmp_path / "variants" / "litert-fp32").exists()


def test_file_of_another_model_is_refused_by_the_guard(tmp_path: Path) -> None:
    """It opens, runs, has the same shapes and is even more accurate; but 3 inputs are worse off."""
    folder = tmp_path / "peer"
    folder.mkdir()
    python = converter(folder / "python", TFLITE.read_bytes())
    words = ["--only", "litert-fp32", "--onnx2tf-python", python, "--max-loss", "1%"]
    row = rows(tmp_path, nets.MODEL, *words)["litert-fp32"]
    assert row.state is State.REFUSED, row.why
    assert row.why.startswith("3 of 499 inputs are wrong and were right before")
    assert float(row.figures.top1 or 0) > 0.98


def test_interpreter_that_is_none(tmp_path: Path, optimize: Run) -> None:
    nets.write_data(tmp_path)
    done = optimize(nets.MODEL, "--onnx2tf-python", os.devnull)
    assert done.returncode == 2
    assert "--onnx2tf-python /dev/null: expected a Python interpreter" in done.stderr
