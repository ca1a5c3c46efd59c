"""A PyTorch export as the source, and what can be made of that alone (`make test-runtimes`)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

from pilotwave_cli.optimize.report import Report, State, read_report
from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.from_report import read_optimized
from pilotwave_protocol.digest import hash_file
from tests.cli.optimize import nets
from tests.cli.optimize.conftest import Run, run_in
from tests.cli.optimize.test_bad_input import sentence
from tests.runtimes import is_installed

pytestmark = pytest.mark.timeout(400)
# the digits network as a module of PyTorch; `hidden` is an output too where that is asked
_EXPORT = """
import sys
import onnx
import torch
from onnx import numpy_helper

model, out, kind = sys.argv[1:]
held = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in onnx.load(model).graph.initializer}

def linear(number):
    weights = held[f"w{number}"].T
    made = torch.nn.Linear(weights.shape[1], weights.shape[0])
    made.load_state_dict({"weight": weights, "bias": held[f"b{number}"]})
    return made

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = linear(1), linear(2)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        probs = torch.softmax(self.second(hidden), 1)
        return (hidden, probs) if kind == "two" else probs

batch = {0: torch.export.Dim("N")} if kind != "fixed" else None
rows = 1 if kind == "fixed" else 2
made = torch.export.export(Net().eval(), (torch.rand(rows, 64),), dynamic_shapes=(batch,))
torch.export.save(made, out)
"""


def exported(path: Path, kind: str = "") -> Path:
    """Export in a process of its own: PyTorch warns of itself."""
    words = [sys.executable, "-W", "ignore", "-c", _EXPORT, nets.MODEL, path, kind]
    subprocess.run(list(map(str, words)), check=True)
    return path


def variants(folder: Path, kind: str, only: tuple[str, ...], *words: object) -> Report:
    nets.write_data(folder)
    model = exported(folder / "model.pt2", kind)
    told = [word for name in only for word in ("--only", name)]
    done = run_in(folder, model, "--max-loss", "2%", *told, *words)
    assert done.returncode == 0, done.stderr
    assert "model.pt2: converting it to ONNX" in done.stderr
    return read_report(folder / "variants")


@pytest.mark.needs("torch")
@pytest.mark.needs("onnxscript")
@pytest.mark.parametrize("kind", ["", "fixed"])
def test_export_becomes_onnx_without_paths_of_this_machine(tmp_path: Path, kind: str) -> None:
    report = variants(tmp_path, kind, ("onnx-fp32", "onnx-int8"))
    assert {row.name for row in report.accepted} == {"onnx-fp32", "onnx-int8"}
    assert report.source.file == "model.pt2"
    assert report.source.sha256 == hash_file(tmp_path / "model.pt2")[0]
    made = onnx.load(tmp_path / "variants" / "onnx-fp32" / "model.onnx")
    assert not made.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in made.graph.node)


@pytest.mark.needs("torch")
@pytest.mark.needs("onnxscript")
@pytest.mark.needs("executorch")
@pytest.mark.parametrize("kind", ["", "two"])
def test_executorch_is_made_of_an_export_and_published(tmp_path: Path, kind: str) -> None:
    names = ("executorch-int8", "executorch-fp32")
    chosen = ("--output", "softmax") if kind == "two" else ()
    report = variants(tmp_path, kind, names, *chosen)
    for row in report.rows:
        assert row.state is State.ACCEPTED, row.why
        assert row.runtime == row.format == "executorch"
        assert row.requires.cpu_any == ()
    figures = {row.name: row.figures for row in report.rows}
    assert (figures["executorch-int8"].bytes or 0) < 0.7 * (figures["executorch-fp32"].bytes or 0)
    found = read_optimized(tmp_path / "variants")
    for name in names:
        built = build_variant(name, Path(found.folders[name]), found.options[name])
        assert [t.name for t in built.variant.inputs] == ["x"]
        outputs = [t.name for t in built.variant.outputs]
        assert outputs == (["relu", "softmax"] if kind == "two" else ["softmax"])


def test_executorch_of_onnx_is_refused_before_anything_is_made(
    tmp_path: Path, optimize: Run
) -> None:
    nets.write_data(tmp_path)
    line = sentence(tmp_path, optimize, nets.MODEL, "--only", "executorch-int8")
    assert "--only executorch-int8: is made of a PyTorch export (torch.export.save) alone" in line


def test_export_that_cannot_be_read(tmp_path: Path, optimize: Run) -> None:
    nets.write_data(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/archive_format", "pt2")
    line = sentence(tmp_path, optimize, tmp_path / "model.pt2")
    if is_installed("torch") and is_installed("onnxscript"):
        assert "Error" in line
    else:
        assert "is not installed: pip install 'pilotwave[optimize-torch]'" in line
