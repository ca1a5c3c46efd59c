"""ExecuTorch: `.pte` programs, by the light way into its binding.

`executorch.runtime` would import the exporter too: four seconds and 130 MB more for the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.extension.pybindings import _C

from pilotwave_agent.runtimes.base import Array, Info, Options, Tensor

# torch's numbers for element types
_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
    7: "float64", 11: "bool", 15: "bfloat16",
}  # fmt: skip


class _Loaded:
    def __init__(self, program: Any, method: str, options: Options) -> None:
        meta = program.method_meta(method)
        self._program = program  # the method lives in its memory
        self._method = program.load_method(method)
        self.info = Info("executorch", version("executorch"))
        inputs = [meta.input_tensor_meta(i) for i in range(meta.num_inputs())]
        outputs = [meta.output_tensor_meta(i) for i in range(meta.num_outputs())]
        self.inputs = _tensors(inputs, options.inputs, "input")
        self.outputs = _tensors(outputs, options.outputs, "output")

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(np.require(feeds[t.name], None, ("C", "W"))) for t in self.inputs]
        found = self._method(given)
        # it hands out views of memory that its next answer overwrites
        arrays = (value.detach().numpy().copy() for value in found)
        return {t.name: array for t, array in zip(self.outputs, arrays, strict=True)}

    def close(self) -> None:
        self._method = self._program = None


def _tensors(found: Sequence[Any], declared: Sequence[Tensor], kind: str) -> tuple[Tensor, ...]:
    """The file knows types and shapes, but no names: the manifest's are taken in order."""
    names = [t.name for t in declared] if len(declared) == len(found) else []
    names = names or [f"{kind}{i}" for i in range(len(found))]
    return tuple(
        Tensor(name, _DTYPES.get(int(meta.dtype()), "?"), tuple(int(n) for n in meta.sizes()))
        for name, meta in zip(names, found, strict=True)
    )


def load(file: Path, options: Options) -> _Loaded:
    """Open a program's `forward`."""
    _C._unsafe_reset_threadpool(options.threads)
    program = _C._load_program(
        str(file),
        enable_etdump=False,
        debug_buffer_size=0,
        program_verification=_C.Verification.InternalConsistency,
    )
    return _Loaded(program, "forward", options)
