"""PyTorch: TorchScript files (`.pt`), also those made for the lite interpreter (`.ptl`).

Such a file names its inputs but not their types and shapes, and has no names for outputs at all:
those are the manifest's (`--inputs`, `--outputs` of `pilotwave publish`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilotwave_agent.runtimes.base import Array, Info, Options, Tensor


class Module:
    """A callable of tensors, in order, as a runner."""

    def __init__(self, module: Any, info: Info, names: Sequence[str], options: Options) -> None:
        self._module = module
        self.info = info
        self.inputs = options.inputs or tuple(Tensor(n, "float32", None) for n in names)
        self.outputs = options.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(np.require(feeds[t.name], None, ("C", "W"))) for t in self.inputs]
        with torch.inference_mode():
            found = self._module(*given)
        return self._named(found)

    def _named(self, found: Any) -> dict[str, Array]:
        if isinstance(found, Mapping):
            return {str(name): _array(value) for name, value in found.items()}
        values = list(found) if isinstance(found, (tuple, list)) else [found]
        names = [t.name for t in self.outputs] or [f"output{i}" for i in range(len(values))]
        return {name: _array(value) for name, value in zip(names, values, strict=True)}

    def close(self) -> None:
        self._module = None


def _array(value: Any) -> Array:
    found: Array = value.detach().cpu().numpy()
    return found.copy()


def load(file: Path, options: Options) -> Module:
    """Open a model on the CPU, or on CUDA where it is asked for and there."""
    torch.set_num_threads(options.threads)
    device = "cuda" if "cuda" in options.devices and torch.cuda.is_available() else "cpu"
    info = Info("torch", str(torch.__version__), device)
    if _is_lite(file):
        from torch.jit.mobile import _load_for_lite_interpreter

        return Module(_load_for_lite_interpreter(str(file)), info, ["input0"], options)
    module = torch.jit.load(str(file), map_location=device).eval()
    names = [a.name for a in module.forward.schema.arguments[1:]]
    return Module(module, info, names, options)


def _is_lite(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/bytecode.pkl") for name in archive.namelist())
