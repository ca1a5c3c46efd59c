"""ONNX Runtime: `.onnx` and `.ort` files, on the first execution provider that is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from pilotwave_agent.runtimes.base import Array, Info, Options, Tensor

_CPU = "CPUExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64"}


class _Session:
    concurrent = True  # several threads may call it at once

    def __init__(self, session: Any) -> None:
        self._session = session
        self._how = ort.RunOptions()
        self.inputs = tuple(_tensor(t) for t in session.get_inputs())
        self.outputs = tuple(_tensor(t) for t in session.get_outputs())
        self._names = [t.name for t in self.outputs]
        provider = session.get_providers()[0]
        self.info = Info("onnxruntime", ort.__version__, provider)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = self._session.run(self._names, dict(feeds), self._how)
        return dict(zip(self._names, found, strict=True))

    def cancel(self) -> None:
        """Break off the calls that are running, and any to come; from another thread."""
        self._how.terminate = True

    def close(self) -> None:
        self._session = None


def _tensor(arg: Any) -> Tensor:
    word = arg.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(n if isinstance(n, int) and n >= 0 else -1 for n in arg.shape)
    return Tensor(arg.name, _DTYPES.get(word, word), shape)


def _providers(wishes: tuple[str, ...]) -> list[str]:
    """A provider that is wished for but not in this build is passed over; the CPU is always last.

    `cuda` and `CUDAExecutionProvider` name the same.
    """
    have = {name.removesuffix("ExecutionProvider").lower(): name for name in _available()}
    wished = [have.get(wish.removesuffix("ExecutionProvider").lower()) for wish in wishes]
    return list(dict.fromkeys([*(name for name in wished if name), _CPU]))


def _available() -> list[str]:
    return [str(name) for name in ort.get_available_providers()]


def load(file: Path, options: Options) -> _Session:
    """Open a model."""
    wanted = ort.SessionOptions()
    wanted.intra_op_num_threads = options.threads
    wanted.inter_op_num_threads = 1
    # spinning threads would cost a battery-run device dearly
    wanted.add_session_config_entry("session.intra_op.allow_spinning", "0")
    ort.set_default_logger_severity(3)
    return _Session(ort.InferenceSession(str(file), wanted, _providers(options.devices)))
