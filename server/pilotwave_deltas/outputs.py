"""Compare two ONNX models on the golden inputs, where ONNX Runtime is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Difference(NamedTuple):
    """The largest absolute difference between two models' outputs, and from the golden ones.

    `good` says whether the second model's outputs are within the tolerances of the golden ones.
    """

    between: float
    from_golden: float
    good: bool


def compare(
    trained: Path, rounded: Path, cases: Path, *, atol: float, rtol: float
) -> Difference | None:
    """Run both models on the golden inputs; None where that cannot be done here."""
    try:
        import onnxruntime
        from safetensors.numpy import load_file
    except ImportError:
        return None
    found = load_file(cases)
    feeds = {n.removeprefix("input."): a for n, a in found.items() if n.startswith("input.")}
    outputs = [_run(onnxruntime, path, feeds) for path in (trained, rounded)]
    between = from_golden = 0.0
    good = True
    for name, value in outputs[1].items():
        between = max(between, _largest(outputs[0][name], value))
        golden = found.get(f"output.{name}")
        if golden is not None:
            from_golden = max(from_golden, _largest(golden, value))
            good = good and np.allclose(value, golden, atol=atol, rtol=rtol)
    return Difference(between, from_golden, good)


def _run(onnxruntime: Any, path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _largest(a: Any, b: Any) -> float:
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0))
