"""The runtimes that a device may have, each behind one interface (`base.Runner`).

    runner = runtimes.load(folder, entrypoint="model.onnx", runtime="onnxruntime")
    runner.run({"x": array})

Importing this costs next to nothing: an adapter, its runtime and numpy come with `load`. A runtime
is known by its name in manifests; which package brings it is known here, so that its version can
be reported without importing it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.runtimes.base import Adapter, Info, Options, Runner, Tensor

__all__ = ["RUNTIMES", "Info", "Options", "Runner", "Runtime", "Tensor", "UnknownRuntime", "load"]


@dataclass(frozen=True)
class Runtime:
    """A runtime: its adapter, the distributions that may bring it, the formats that it opens.

    `extra` is the word for `pip install pilotwave[...]`.
    """

    module: str
    distributions: tuple[str, ...]
    formats: tuple[str, ...]
    extra: str


RUNTIMES = {
    "onnxruntime": Runtime(
        "pilotwave_agent.runtimes.onnxruntime",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-silicon"),
        ("onnx", "ort"),
        "onnxruntime",
    ),
}


class UnknownRuntime(ValueError):
    """This agent has no adapter of that name."""


def load(folder: Path, *, entrypoint: str, runtime: str, options: Options | None = None) -> Runner:
    """Open `folder/entrypoint` in its runtime.

    Raises `UnknownRuntime`, `ImportError` where the runtime is not installed, and whatever the
    runtime raises about the file.
    """
    known = RUNTIMES.get(runtime)
    if known is None:
        raise UnknownRuntime(f"this agent cannot run {runtime}; it knows {', '.join(RUNTIMES)}")
    adapter: Adapter = importlib.import_module(known.module)
    return adapter.load(folder / entrypoint, options or Options())
