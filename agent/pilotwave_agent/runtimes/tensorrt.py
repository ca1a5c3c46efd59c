"""TensorRT: engines (`.engine`, `.plan`) and ONNX files that were built into one on this device.

Where TensorRT's Python package is there (JetPack brings it), an application may serve by it. Where
only `trtexec` is, the self-test still compares golden cases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave_agent.runtimes import nvidia, trtexec
from pilotwave_agent.runtimes.base import (
    Array,
    CannotLoad,
    Info,
    Options,
    Runner,
    Tensor,
    dtype_name,
)
from pilotwave_agent.runtimes.engines import engine_for

try:
    import tensorrt as trt
except ImportError:
    trt = None


def load(file: Path, options: Options) -> Runner:
    """Open an engine; of an ONNX file, the one that was built from it here."""
    engine, binding = engine_for(file, options)
    if trt is not None:
        return _Engine(engine, options)
    if nvidia.trtexec() is None:
        raise ImportError("neither TensorRT's Python package nor trtexec is on this device")
    return trtexec.Called(engine, binding.version, options)


class _Engine:
    """An engine by TensorRT's API (8.5 and later), its buffers on the GPU."""

    def __init__(self, file: Path, options: Options) -> None:
        self._cuda = _cuda()
        logger = trt.Logger(trt.Logger.ERROR)
        self._engine = trt.Runtime(logger).deserialize_cuda_engine(file.read_bytes())
        if self._engine is None:  # its way of saying no: the reason goes to the log alone
            raise CannotLoad("TensorRT would not open it: engine plan file is not compatible")
        self._context = self._engine.create_execution_context()
        self._stream = self._call(self._cuda.cudaStreamCreate())
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.inputs = tuple(self._tensor(n) for n in inputs)
        self.outputs = tuple(self._tensor(n) for n in names if n not in inputs)
        self.info = Info("tensorrt", str(trt.__version__), "gpu", {"through": "api"})

    def _tensor(self, name: str) -> Tensor:
        dtype = dtype_name(trt.nptype(self._engine.get_tensor_dtype(name)))
        return Tensor(name, dtype, tuple(int(n) for n in self._engine.get_tensor_shape(name)))

    def _call(self, answer: tuple[Any, ...]) -> Any:
        """CUDA's functions return their error first."""
        error, *values = answer
        if int(error):
            raise CannotLoad(f"CUDA failed with {error}")
        return values[0] if values else None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        cuda, stream = self._cuda, self._stream
        with contextlib.ExitStack() as memory:
            for tensor in self.inputs:
                array = np.ascontiguousarray(feeds[tensor.name], np.dtype(tensor.dtype))
                if not self._context.set_input_shape(tensor.name, array.shape):
                    # it would go on with the shape before, and read beyond what is here
                    got, expected = list(array.shape), list(tensor.shape or ())
                    raise ValueError(f"{tensor.name}: expected {expected}; got {got}")
                place = self._allocate(memory, array.nbytes)
                kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
                self._call(cuda.cudaMemcpy(place, array.ctypes.data, array.nbytes, kind))
                self._context.set_tensor_address(tensor.name, int(place))
            outputs, places = {}, {}
            for tensor in self.outputs:
                shape = tuple(self._context.get_tensor_shape(tensor.name))
                outputs[tensor.name] = np.empty(shape, np.dtype(tensor.dtype))
                places[tensor.name] = self._allocate(memory, outputs[tensor.name].nbytes)
                self._context.set_tensor_address(tensor.name, int(places[tensor.name]))
            if not self._context.execute_async_v3(int(stream)):
                raise CannotLoad("TensorRT could not run the engine")
            self._call(cuda.cudaStreamSynchronize(stream))
            for name, array in outputs.items():
                kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
                self._call(cuda.cudaMemcpy(array.ctypes.data, places[name], array.nbytes, kind))
        return outputs

    def _allocate(self, memory: contextlib.ExitStack, size: int) -> Any:
        place = self._call(self._cuda.cudaMalloc(size))
        memory.callback(self._cuda.cudaFree, place)
        return place

    def close(self) -> None:
        if self._context is not None:
            self._context = self._engine = None
            self._cuda.cudaStreamDestroy(self._stream)


def _cuda() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError:
        from cuda import cudart as runtime  # until cuda-python 12.6
    return runtime
