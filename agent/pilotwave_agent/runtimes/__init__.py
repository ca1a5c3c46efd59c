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
from pilotwave_protocol.formats import COMMAND

__all__ = [
    "COMMAND",
    "RUNTIMES",
    "WHEELHOUSE",
    "Info",
    "Options",
    "Runner",
    "Runtime",
    "Tensor",
    "UnknownRuntime",
    "adapter",
    "load",
]

WHEELHOUSE = "wheelhouse"
"""The runtime of the agent itself as wheels, which nobody loads either (`wheelhouse`)."""


@dataclass(frozen=True)
class Runtime:
    """A runtime: its adapter, the distributions that may bring it, and the word for
    `pip install pilotwave[...]`. Which formats it opens is `pilotwave_protocol.formats`'s.
    """

    module: str
    distributions: tuple[str, ...]
    extra: str


_HERE = "pilotwave_agent.runtimes."
RUNTIMES = {
    "onnxruntime": Runtime(
        _HERE + "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-silicon"),
        "onnxruntime",
    ),
    "litert": Runtime(_HERE + "litert", ("ai-edge-litert",), "litert"),
    "tflite-runtime": Runtime(_HERE + "tflite_runtime", ("tflite-runtime",), "tflite-runtime"),
    "openvino": Runtime(_HERE + "openvino", ("openvino",), "openvino"),
    "torch": Runtime(_HERE + "torch", ("torch",), "torch"),
    "executorch": Runtime(_HERE + "executorch", ("executorch",), "executorch"),
    # the client is ours; what it takes besides is numpy, to compare golden cases
    "edge-impulse": Runtime(_HERE + "edge_impulse", ("numpy",), "edge-impulse"),
    "llama.cpp": Runtime(_HERE + "llama_cpp", ("xllamacpp",), "llama-cpp"),
    "tensorrt": Runtime(_HERE + "tensorrt", ("tensorrt", "tensorrt-cu12"), "tensorrt"),
}


class UnknownRuntime(ValueError):
    """This agent has no adapter of that name."""


def adapter(runtime: str) -> Adapter:
    """Import a runtime's adapter and with it the runtime. Raises `UnknownRuntime`, `ImportError`"""
    known = RUNTIMES.get(runtime)
    if known is None:
        raise UnknownRuntime(f"this agent cannot load {runtime}; it knows {', '.join(RUNTIMES)}")
    found: Adapter = importlib.import_module(known.module)
    return found


def load(folder: Path, *, entrypoint: str, runtime: str, options: Options | None = None) -> Runner:
    """Open `folder/entrypoint` in its runtime.

    Raises `UnknownRuntime`, `ImportError` where the runtime is not installed, and whatever the
    runtime raises about the file.
    """
    return adapter(runtime).load(folder / entrypoint, options or Options())
