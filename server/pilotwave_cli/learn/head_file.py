"""A model's last layer: take it out of the ONNX file, put another in, and scale one so that its
scores mean what they say."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave_cli.errors import Failed
from pilotwave_cli.learn.base_version import Judged
from pilotwave_cli.optimize.recipes import Recipe
from pilotwave_cli.optimize.run_tool import Limits, run_tool
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.statistics import Floats, read_head, scores, write_numbers

TOOL = Recipe(
    name="head",
    tool="onnx_head",
    entrypoint="model.onnx",
    extra="optimize",
    modules=("onnx",),
    runtime="onnxruntime",
    precision="fp32",
)
_SCALES = np.geomspace(0.1, 100, 61)


def read(raw: bytes, features: int, classes: int, what: str) -> Floats:
    """Read a head [features + 1, classes]. Raises `Failed`."""
    try:
        return read_head(raw, features=features, classes=classes)
    except BadMessage as e:
        raise Failed(f"{what}: {e}") from e


def scaled(head: Floats, before: Judged) -> Floats:
    """Scale a head so that its softmax means what it says on the data (temperature scaling: Guo et
    al., "On Calibration of Modern Neural Networks", ICML 2017). Which class is first stays."""
    z = scores(head, before.embeddings.astype(np.float64))
    z = z - z.max(axis=1, keepdims=True)
    rows = np.arange(len(z))

    def loss(scale: float) -> float:
        s = z * scale
        return float((np.log(np.exp(s).sum(axis=1)) - s[rows, before.labels]).mean())

    return np.asarray(head * min(_SCALES, key=loss))


def taken_out(file: Path, before: Judged, embedding: str) -> Floats:
    """Return the head that a model's file has. Raises `ToolFailed`, `Failed`."""
    with tempfile.TemporaryDirectory(prefix="pilotwave-learn-") as scratch:
        out = Path(scratch) / "head.bin"
        run_tool(TOOL, _task(file, before.data.path, out, {"embedding": embedding}), Limits())
        return read(out.read_bytes(), before.embeddings.shape[1], before.scores.shape[1], str(file))


def rebuilt(file: Path, head: Floats, embedding: str, evaluate: Path, folder: Path) -> Path:
    """Write the model with this head. Raises `ToolFailed`."""
    numbers, out = folder / "head.bin", folder / TOOL.entrypoint
    numbers.write_bytes(write_numbers(head))
    options = {"embedding": embedding, "head": str(numbers), "classes": str(head.shape[1])}
    run_tool(TOOL, _task(file, evaluate, out, options), Limits())
    return out


def _task(file: Path, evaluate: Path, out: Path, options: dict[str, str]) -> dict[str, Any]:
    source = file / TOOL.entrypoint if file.is_dir() else file
    return {
        "model": str(source.absolute()),
        "calibration": str(evaluate.absolute()),
        "out": str(out),
        "shapes": {},
        "options": options,
    }
