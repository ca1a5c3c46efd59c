"""Which runtimes are installed here. Tests that need another one are deselected, and it is said.

`@pytest.mark.needs("torch")` marks a test; `make test-runtimes` installs what `make test` leaves
out and runs every runtime's tests.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import history, postgres, radosgw

# a runtime -> the module that it comes as
MODULES = {
    "onnxruntime": "onnxruntime",
    "litert": "ai_edge_litert",
    "openvino": "openvino",
    "torch": "torch",
    "executorch": "executorch",
    "onnxscript": "onnxscript",
    "nncf": "nncf",
    "litert-quantizer": "litert_quantizer",
    "llama.cpp": "xllamacpp",
}
TFLITE_PYTHON = Path(__file__).parent.parent / ".venv-tflite" / "bin" / "python"
ONNX2TF_PYTHON = TFLITE_PYTHON.parents[2] / ".venv-onnx2tf" / "bin" / "python"


def is_installed(runtime: str) -> bool:
    """tflite-runtime lives in an environment of its own, as it needs an older numpy."""
    if runtime == "tflite-runtime":
        return TFLITE_PYTHON.exists()
    if runtime == "onnx2tf":  # an environment of its own, as it pins all that it needs
        return ONNX2TF_PYTHON.exists()
    if runtime == "postgresql":  # one of the tests' own, to be stopped; the header tells of it
        return postgres.find_binaries() is not None
    if runtime == "radosgw":
        return radosgw.is_here()
    if runtime == "history":
        return history.is_here()
    module = MODULES.get(runtime)
    return module is None or find_spec(module) is not None


def summary() -> list[str]:
    known = [*MODULES, "tflite-runtime", "onnx2tf"]
    here = [name for name in known if is_installed(name)]
    lines = [f"runtimes: {', '.join(here)}"]
    missing = [name for name in known if name not in here]
    if missing:
        words = ", ".join(missing)
        lines.append(f"runtimes: the tests of {words} are left out; `make test-runtimes` has them")
    if not radosgw.is_here():
        lines.append("radosgw: not found, so the tests of buckets are on moto alone")
    if not history.is_here():
        lines.append(
            "history: this checkout has none, so the tests with older commits are left out"
        )
    return lines


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests of runtimes that are not installed."""
    missing = [item for item in items if not all(map(is_installed, _needs(item)))]
    if missing:
        config.hook.pytest_deselected(items=missing)
        items[:] = [item for item in items if item not in missing]


def _needs(item: pytest.Item) -> list[str]:
    return [name for marker in item.iter_markers("needs") for name in marker.args]
