"""A stand-in for TensorRT's Python API and CUDA's: no GPU is needed, ONNX Runtime computes.

It follows `tensorrt` 10 and `cuda.bindings.runtime` as their documentation has them, and is as
unforgiving: an engine of another TensorRT is opened as None, addresses must be of memory that was
allocated and is large enough, the host cannot see what is on the device, and what was launched on a
stream has happened only when the stream was waited for. Engines are those of `peers.trtexec`.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.runtimes import tensorrt as adapter
from tests.peers import trtexec

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
_HIDDEN = 1 << 60  # what makes a device's address none of the host's


class Gpu:
    """Its memory and its streams."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.launched: dict[int, list[Callable[[], None]]] = {}

    def at(self, address: int, size: int) -> int:
        """Return where the memory at a device's address really is."""
        block = self.memory[address]  # an address that nobody gave out is a KeyError
        assert size <= len(block), f"{size} bytes in a block of {len(block)}"
        return ctypes.addressof(block)


class MemcpyKind(enum.Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class Cuda(ModuleType):
    """`cuda.bindings.runtime`: each function returns its error first."""

    cudaMemcpyKind = MemcpyKind

    def __init__(self, gpu: Gpu) -> None:
        super().__init__("cuda.bindings.runtime")
        self._gpu = gpu

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        block = (ctypes.c_char * size)()
        address = ctypes.addressof(block) | _HIDDEN
        self._gpu.memory[address] = block
        return 0, address

    def cudaFree(self, address: int) -> tuple[int]:
        del self._gpu.memory[address]
        return (0,)

    def cudaMemcpy(self, to: int, source: int, size: int, kind: MemcpyKind) -> tuple[int]:
        if kind is MemcpyKind.cudaMemcpyHostToDevice:
            to = self._gpu.at(to, size)
        else:
            source = self._gpu.at(source, size)
        ctypes.memmove(to, source, size)
        return (0,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        stream = len(self._gpu.launched) + 1
        self._gpu.launched[stream] = []
        return 0, stream

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        for kernel in self._gpu.launched[stream]:
            kernel()
        self._gpu.launched[stream] = []
        return (0,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        del self._gpu.launched[stream]
        return (0,)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class Engine:
    def __init__(self, gpu: Gpu, session: Any) -> None:
        self.gpu, self.session = gpu, session
        self.inputs = {t.name: t for t in session.get_inputs()}
        self.outputs = {t.name: t for t in session.get_outputs()}
        self.tensors = {**self.inputs, **self.outputs}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return [*self.tensors][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.tensors[name].type)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(n if isinstance(n, int) else -1 for n in self.tensors[name].shape)

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: Iterable[int]) -> bool:
        known, shape = self.engine.get_tensor_shape(name), tuple(shape)
        fits = all(k in (-1, n) for k, n in zip(known, shape, strict=False))
        if len(known) != len(shape) or not fits:
            return False  # it says no, and raises nothing
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """A size that varies is the batch's: all of the networks here are so."""
        batch = [s[0] for s in self.shapes.values()] or [-1]
        return tuple(batch[0] if n < 0 else n for n in self.engine.get_tensor_shape(name))

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        if self.addresses.keys() != engine.tensors.keys() or self.shapes.keys() != {*engine.inputs}:
            return False

        def kernel() -> None:
            feeds = {n: self._array(n, self.shapes[n]) for n in engine.inputs}
            answers = engine.session.run([*engine.outputs], feeds)
            for name, answer in zip(engine.outputs, answers, strict=True):
                self._array(name, answer.shape)[...] = answer

        engine.gpu.launched[stream].append(kernel)
        return True

    def _array(self, name: str, shape: tuple[int, ...]) -> Any:
        dtype = np.dtype(TYPES[self.engine.get_tensor_dtype(name)])
        size = int(np.prod(shape)) * dtype.itemsize
        place = self.engine.gpu.at(self.addresses[name], size)
        return np.frombuffer((ctypes.c_char * size).from_address(place), dtype).reshape(shape)


class Logger:
    ERROR = 1

    def __init__(self, level: int) -> None:
        self.level = level


def install(patch: pytest.MonkeyPatch) -> Gpu:
    """Have the adapter find these in the places of TensorRT and CUDA; return the GPU."""
    gpu = Gpu()

    class Runtime:
        def __init__(self, logger: Logger) -> None:
            pass

        def deserialize_cuda_engine(self, raw: bytes) -> Engine | None:
            if raw[:28] != trtexec.header():
                return None
            return Engine(gpu, trtexec.session(raw[36:]))

    module = ModuleType("tensorrt")
    found = {"Runtime": Runtime, "Logger": Logger, "TensorIOMode": TensorIOMode}
    version = ".".join(map(str, trtexec.VERSION[:3]))
    vars(module).update(found, nptype=TYPES.__getitem__, __version__=version)
    patch.setattr(adapter, "trt", module)
    patch.setattr(adapter, "_cuda", lambda: Cuda(gpu))
    return gpu
