"""ONNX Runtime: `.onnx` and `.ort` files on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from pilotwave_agent.runtimes.base import Array, Tensor

_DTYPES = {"float": "float32", "double": "float64"}


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs: Sequence[Tensor] = [_tensor(t) for t in session.get_inputs()]
        self.outputs: Sequence[Tensor] = [_tensor(t) for t in session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return all outputs by name."""
        names = [t.name for t in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


def _tensor(arg: Any) -> Tensor:
    word = arg.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(n if isinstance(n, int) and n >= 0 else -1 for n in arg.shape)
    return Tensor(arg.name, _DTYPES.get(word, word), shape)


def load(entrypoint: Path, *, threads: int) -> _Session:
    """Open a model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # spinning threads would cost a battery-run device dearly
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    ort.set_default_logger_severity(3)
    session = ort.InferenceSession(str(entrypoint), options, providers=["CPUExecutionProvider"])
    return _Session(session)
