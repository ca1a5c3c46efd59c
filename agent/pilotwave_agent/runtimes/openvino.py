"""OpenVINO: IR (`model.xml` with `model.bin`), ONNX and `.tflite` on CPU, GPU or NPU, and what was
compiled for an NPU."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from pilotwave_agent.runtimes.base import Array, Info, Options, Tensor, dtype_name
from pilotwave_protocol.sniff.npu_blob import is_npu_blob

# what operators call an accelerator -> OpenVINO's word for it
_DEVICES = {"intel_npu": "NPU", "intel_gpu": "GPU"}


class _Compiled:
    def __init__(self, compiled: Any, info: Info, options: Options) -> None:
        self._request = compiled.create_infer_request()
        self.info = info
        self.inputs = tuple(_tensor(p, options.inputs) for p in compiled.inputs)
        self.outputs = tuple(_tensor(p, options.outputs) for p in compiled.outputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._request.infer({i: feeds[t.name] for i, t in enumerate(self.inputs)})
        found = (self._request.get_output_tensor(i).data for i in range(len(self.outputs)))
        # the request writes its next answer into the same memory
        return {t.name: array.copy() for t, array in zip(self.outputs, found, strict=True)}

    def close(self) -> None:
        self._request = None


def _tensor(port: Any, declared: Iterable[Tensor]) -> Tensor:
    """A port may have several names: the manifest's one counts, if it is among them."""
    names = port.names
    wanted = next((t.name for t in declared if t.name in names), None)
    name = wanted or (min(names) if names else port.node.get_friendly_name())
    known = port.partial_shape
    shape = None
    if not known.rank.is_dynamic:
        shape = tuple(-1 if n.is_dynamic else n.get_length() for n in known)
    return Tensor(name, dtype_name(port.element_type.to_dtype()), shape)


def _device(preferred: tuple[str, ...], there: list[str]) -> str:
    """Return the first wish that is there; `GPU` is there as `GPU` or as `GPU.0`."""
    for wish in preferred:
        name = _DEVICES.get(wish.lower(), wish.upper())
        if any(have == name or have.startswith(name + ".") for have in there):
            return name
    return "CPU"


def _is_npu_blob(file: Path) -> bool:
    with file.open("rb") as stream:
        # not closed by hand: the view would still hold it
        return is_npu_blob(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))


def load(file: Path, options: Options) -> _Compiled:
    """Open a model."""
    core = ov.Core()
    device = _device(options.devices, core.available_devices)
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        # on processors with bf16 the default would differ by 0.1 from what the model answers
        # elsewhere; a model that was quantised stays so
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        settings["INFERENCE_NUM_THREADS"] = options.threads
    if _is_npu_blob(file):
        device = "NPU"
        compiled = core.import_model(file.read_bytes(), device, {})
    else:
        compiled = core.compile_model(str(file), device, settings)
    info = Info("openvino", ov.__version__.split("-")[0], device)
    return _Compiled(compiled, info, options)
