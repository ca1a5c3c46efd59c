"""ONNX Runtime: `.onnx` and `.ort` files, on the first execution provider that is there."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pilotwave_agent.runtimes.base import Array, Info, Options, Tensor
from pilotwave_agent.runtimes.casefile import narrowed, widened
from pilotwave_protocol.tensortypes import BFLOAT16

_BF16 = 16  # TensorProto.BFLOAT16
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
        self._halves = {t.name for t in (*self.inputs, *self.outputs) if t.dtype == BFLOAT16}
        provider = session.get_providers()[0]
        self.info = Info("onnxruntime", ort.__version__, provider)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._halves:
            return self._run_halves(feeds)
        found = self._session.run(self._names, dict(feeds), self._how)
        return dict(zip(self._names, found, strict=True))

    def _run_halves(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a model with bfloat16, which numpy has not: float32 stands for it here."""
        given = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(narrowed(array), _BF16)
            if name in self._halves
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in feeds.items()
        }
        found = self._session.run_with_ort_values(self._names, given, self._how)
        return {n: _as_numpy(n in self._halves, v) for n, v in zip(self._names, found, strict=True)}

    def cancel(self) -> None:
        """Break off the calls that are running, and any to come; from another thread."""
        self._how.terminate = True

    def close(self) -> None:
        self._session = None


def _as_numpy(halves: bool, value: Any) -> Array:
    if not halves:
        plain: Array = value.numpy()
        return plain
    count = math.prod(value.shape())
    raw = ctypes.string_at(value.data_ptr(), 2 * count) if count else b""
    return widened(np.frombuffer(raw, np.uint16)).reshape(value.shape())


def _tensor(arg: Any) -> Tensor:
    word = arg.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(n if isinstance(n, int) and n >= 0 else -1 for n in arg.shape)
    return Tensor(arg.name, _DTYPES.get(word, word), shape)


def _providers(preferred: tuple[str, ...]) -> list[str]:
    """A provider that is asked for but not in this build is passed over; the CPU is always last.

    `cuda` and `CUDAExecutionProvider` name the same.
    """
    have = {name.removesuffix("ExecutionProvider").lower(): name for name in _available()}
    asked = [have.get(wish.removesuffix("ExecutionProvider").lower()) for wish in preferred]
    return list(dict.fromkeys([*(name for name in asked if name), _CPU]))


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
