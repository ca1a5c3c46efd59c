"""`.tflite` files, for LiteRT and for the tflite-runtime that came before it: one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pilotwave_agent.runtimes.base import Array, Info, Options, Tensor, dtype_name
from pilotwave_protocol.accelerators import family

# what operators call an accelerator -> the library that brings it
_DELEGATES = {
    "coral": "libedgetpu.so.1",
    "ethosu": "libethosu_delegate.so",
    "gpu": "libtensorflowlite_gpu_delegate.so",
    "nnapi": "libnnapi_delegate.so",
    "xnnpack": "libxnnpack_delegate.so",
}


class Interpreted:
    """A model in a TensorFlow Lite interpreter. Names are those of its tensors."""

    def __init__(self, interpreter: Any, info: Info) -> None:
        self._interpreter = interpreter
        self.info = info
        interpreter.allocate_tensors()
        self._inputs = interpreter.get_input_details()
        self._outputs = interpreter.get_output_details()
        self.inputs = tuple(_tensor(d) for d in self._inputs)
        self.outputs = tuple(_tensor(d) for d in self._outputs)
        self._sizes = [tuple(int(n) for n in d["shape"]) for d in self._inputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = [feeds[t.name] for t in self.inputs]
        self._resize([a.shape for a in given])
        for detail, array in zip(self._inputs, given, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        found = [self._interpreter.get_tensor(d["index"]) for d in self._outputs]
        return {t.name: array for t, array in zip(self.outputs, found, strict=True)}

    def _resize(self, sizes: list[tuple[int, ...]]) -> None:
        """Ask for other sizes only where the model allows them, as that allocates anew."""
        if sizes == self._sizes:
            return
        for tensor, detail, wanted in zip(self.inputs, self._inputs, sizes, strict=True):
            if -1 in (tensor.shape or ()):
                self._interpreter.resize_tensor_input(detail["index"], wanted)
        self._interpreter.allocate_tensors()
        self._sizes = sizes

    def close(self) -> None:
        self._interpreter = None


def _tensor(detail: Mapping[str, Any]) -> Tensor:
    signature = detail.get("shape_signature")
    shape = signature if signature is not None and len(signature) else detail["shape"]
    scale, zero_point = detail["quantization"]
    sizes = tuple(int(n) for n in shape)
    dtype = dtype_name(detail["dtype"])
    return Tensor(str(detail["name"]), dtype, sizes, float(scale), int(zero_point))


def load_with(
    interpreter: ModuleType, runtime: str, version: str, file: Path, options: Options
) -> Interpreted:
    """Open a model by the `interpreter` module of either package, with the delegates there are."""
    delegates, names = _delegates(interpreter.load_delegate, options.devices)
    opened = interpreter.Interpreter(
        model_path=str(file),
        num_threads=options.threads,
        experimental_delegates=delegates or None,
    )
    return Interpreted(opened, Info(runtime, version, ", ".join([*names, "cpu"])))


def _delegates(
    load_delegate: Callable[[str], Any], preferred: tuple[str, ...]
) -> tuple[list[Any], list[str]]:
    """A delegate whose library or hardware is not there is passed over: the CPU does the same.

    A model that was compiled for one (Coral) then misses its operator, and that is told.
    """
    found, names = [], []
    for wish in preferred:
        try:
            found.append(load_delegate(_DELEGATES.get(family(wish), wish)))
        except (OSError, ValueError):
            continue
        names.append(wish)
    return found, names
