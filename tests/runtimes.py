"""Which runtimes are installed here. Tests that need another one are deselected, and it is said.

`@pytest.mark.needs("torch")` marks a test; `make test-torch` and `make test-tflite` install the
runtimes that `make test` leaves out and run their tests.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

# a runtime -> the module that it comes as, and the command that runs its tests
MODULES = {
    "onnxruntime": ("onnxruntime", "make test"),
    "litert": ("ai_edge_litert", "make test"),
    "openvino": ("openvino", "make test"),
    "torch": ("torch", "make test-torch"),
    "executorch": ("executorch", "make test-torch"),
}
TFLITE_PYTHON = Path(__file__).parent.parent / ".venv-tflite" / "bin" / "python"


def is_installed(runtime: str) -> bool:
    """tflite-runtime lives in an environment of its own, as it needs an older numpy."""
    if runtime == "tflite-runtime":
        return TFLITE_PYTHON.exists()
    module = MODULES.get(runtime)
    return module is None or find_spec(module[0]) is not None


def summary() -> list[str]:
    known = [*MODULES, "tflite-runtime"]
    here = [name for name in known if is_installed(name)]
    lines = [f"runtimes: {', '.join(here)}"]
    for name in known:
        if name not in here:
            command = MODULES.get(name, ("", "make test-tflite"))[1]
            lines.append(f"runtimes: {name} is not installed; `{command}` runs its tests")
    return lines


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests of runtimes that are not installed."""
    missing = [item for item in items if not all(map(is_installed, _needs(item)))]
    if missing:
        config.hook.pytest_deselected(items=missing)
        items[:] = [item for item in items if item not in missing]


def _needs(item: pytest.Item) -> list[str]:
    return [name for marker in item.iter_markers("needs") for name in marker.args]
