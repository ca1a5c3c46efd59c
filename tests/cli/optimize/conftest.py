"""One run of `pilotwave optimize` for all tests that look at what it made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilotwave_cli.optimize.report import Report, Row, read_report
from tests import programs
from tests.cli.optimize import nets

# the last one is not told of the interpreter that it needs
MADE = ("onnx-fp32", "onnx-int8", "onnx-fp16", "openvino-fp16", "litert-fp32")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Made:
    """What a run made, and what it said."""

    folder: Path
    report: Report
    done: subprocess.CompletedProcess[str]

    def row(self, name: str) -> Row:
        return next(row for row in self.report.rows if row.name == name)


@pytest.fixture
def optimize(tmp_path: Path) -> Run:
    """`optimize(MODEL, …)` runs the command in the test's folder, on the data that lies there."""

    def run(model: Path, *words: object) -> subprocess.CompletedProcess[str]:
        return run_in(tmp_path, model, *words)

    return run


def run_in(folder: Path, model: Path, *words: object) -> subprocess.CompletedProcess[str]:
    data = ["--calibration", "cal.npz", "--evaluate", "test.npz", "--out", "variants"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PILOTWAVE_")}
    told = ["optimize", model, *data, *words]
    return programs.run(programs.CLI, told, folder=folder, environment=environment, seconds=280)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All variants of a depthwise network, and two of its publisher's: one with a scale for each
    tensor, and the digits model itself under another name."""
    folder = tmp_path_factory.mktemp("optimize")
    nets.write_data(folder)
    model = nets.write_depthwise(folder / "model.onnx")
    quantise(model, folder / "tensor.onnx", per_channel=False)
    also = ["--also", "per-tensor=tensor.onnx", "--also", f"plain={nets.MODEL}"]
    only = [word for name in MADE for word in ("--only", name)]
    done = run_in(folder, model, "--max-loss", "2%", *also, *only)
    assert done.returncode == 0, done.stderr
    return Made(folder / "variants", read_report(folder / "variants"), done)


def quantise(model: Path, out: Path, *, per_channel: bool = True, flowing: str = "QUInt8") -> None:
    """Quantise as `pilotwave optimize` never does, on the data that lies beside `out`."""
    words = [str(model), str(out.parent / "cal.npz"), str(out), str(int(per_channel)), flowing]
    subprocess.run([sys.executable, "-c", _QUANTISE, *words], check=True, cwd=out.parent)


# a process of its own, as onnxruntime's quantiser changes the logging of the whole process
_QUANTISE = """
import sys
import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

model, calibration, out, per_channel, flowing = sys.argv[1:]
rows = np.load(calibration)["x"]

class Reader(CalibrationDataReader):
    calls = iter([{"x": rows[i : i + 1]} for i in range(50)])
    def get_next(self):
        return next(self.calls, None)

quantize_static(
    model, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel == "1",
    activation_type=QuantType[flowing], weight_type=QuantType.QInt8,
)
"""
