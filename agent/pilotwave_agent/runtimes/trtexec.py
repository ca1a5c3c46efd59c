"""NVIDIA's `trtexec`: build an engine from ONNX on this device, and run an engine without an API.

An engine is bound to its TensorRT, GPU and precision. It is built once per ONNX file and such a
device, beside the versions' folders (which hold what was signed and nothing else), and found again
by that key. Flags are those of TensorRT 8.5 to 10; from 11 on precision is the network's own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.runtimes import nvidia
from pilotwave_agent.runtimes.base import Array, CannotLoad, Info, Options, Tensor

_LARGEST_BATCH = 8
_TYPED_SINCE = 11
_PRECISIONS = {"fp16": "--fp16", "int8": "--int8", "bf16": "--bf16"}


@dataclass(frozen=True)
class Binding:
    """What an engine is bound to: TensorRT's version, the GPU (`sm_87`), the precision."""

    version: str
    gpu: str
    precision: str

    def name(self, onnx_sha256: str) -> str:
        """Return the file name of the engine for an ONNX file of this digest."""
        words = (onnx_sha256, self.version, self.gpu, self.precision or "fp32")
        return "-".join(re.sub(r"[^\w.+]", "_", word) for word in words) + ".engine"


def build(
    onnx: Path, engine: Path, binding: Binding, inputs: Sequence[Tensor], *, timeout_s: float
) -> None:
    """Build `engine` from `onnx`; it gets its name when it is complete.

    Raises `CannotLoad` with the builder's last words, `TimeoutError`, `OSError`.
    """
    part = engine.with_suffix(".part")
    part.unlink(missing_ok=True)
    words = [f"--onnx={onnx}", f"--saveEngine={part}", "--skipInference", *_shapes(inputs)]
    if int(binding.version.split(".")[0] or 0) < _TYPED_SINCE:
        words += [_PRECISIONS[binding.precision]] if binding.precision in _PRECISIONS else []
    try:
        call(words, timeout_s=timeout_s)
        with part.open("rb") as built:
            os.fsync(built.fileno())
        part.replace(engine)
    except FileNotFoundError as e:
        raise CannotLoad("trtexec ended well and wrote no engine") from e
    finally:
        part.unlink(missing_ok=True)


def _shapes(inputs: Sequence[Tensor]) -> list[str]:
    """Bounds for inputs whose sizes vary: one to eight at once; inner sizes are taken as 1."""
    loose = [t for t in inputs if t.shape and -1 in t.shape]
    if not loose:
        return []

    def words(batch: int) -> str:
        return ",".join(f"{t.name}:{_sized(t.shape or (), batch)}" for t in loose)

    bounds = {"min": 1, "opt": 1, "max": _LARGEST_BATCH}
    return [f"--{name}Shapes={words(batch)}" for name, batch in bounds.items()]


def _sized(shape: tuple[int, ...], batch: int) -> str:
    sizes = [batch if i == 0 and n < 0 else max(n, 1) for i, n in enumerate(shape)]
    return "x".join(map(str, sizes))


def call(words: Sequence[str], *, timeout_s: float) -> str:
    """Run `trtexec` to its end and return what it said; its complaint is the `CannotLoad`."""
    program = nvidia.trtexec()
    if program is None:
        raise CannotLoad("trtexec is not on this device")
    try:
        done = subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"trtexec: no end within {timeout_s:.0f} s") from None
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        complaints = [line for line in said.splitlines() if "[E]" in line or "FAILED" in line]
        tail = " ".join(" ".join(complaints or said.splitlines()[-5:]).split())
        raise CannotLoad(f"trtexec ended with status {done.returncode}: {tail[-300:]}")
    return said


class Called:
    """An engine that `trtexec` runs, once per call: for the self-test, too slow to serve."""

    def __init__(self, engine: Path, version: str, options: Options) -> None:
        self._engine = engine
        self._options = options
        self.inputs, self.outputs = options.inputs, options.outputs
        self.info = Info("tensorrt", version, "gpu", {"through": "trtexec"})
        self.times: list[float] = []
        """Seconds of the inferences alone, as trtexec measured them."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        with tempfile.TemporaryDirectory(prefix="trt-") as scratch:
            folder = Path(scratch)
            loads, shapes = [], []
            for i, (name, array) in enumerate(feeds.items()):
                np.ascontiguousarray(array).tofile(folder / f"{i}.bin")
                loads.append(f"{name}:{folder / f'{i}.bin'}")
                shapes.append(f"{name}:{'x'.join(map(str, array.shape))}")
            loose = any(-1 in (t.shape or ()) for t in self.inputs)
            words = [
                f"--loadEngine={self._engine}",
                f"--loadInputs={','.join(loads)}",
                *([f"--shapes={','.join(shapes)}"] if loose else []),
                "--iterations=3",
                "--duration=0",
                "--warmUp=0",
                f"--exportOutput={folder / 'out.json'}",
                f"--exportTimes={folder / 'times.json'}",
            ]
            call(words, timeout_s=self._options.timeout_s)
            self.times += _times(_read(folder / "times.json"))
            return self._outputs(_read(folder / "out.json"))

    def _outputs(self, found: list[Any]) -> dict[str, Array]:
        import numpy as np

        types = {t.name: t.dtype for t in self.outputs}
        arrays: dict[str, Array] = {}
        for item in found:
            name, sizes = str(item["name"]), [int(n) for n in str(item["dimensions"]).split("x")]
            values = np.array(item["values"], np.dtype(types.get(name, "float32")))
            arrays[name] = values.reshape(sizes)
        return arrays

    def close(self) -> None:
        self.times.clear()


def _times(found: list[Any]) -> list[float]:
    return [float(item["latencyMs"]) / 1000 for item in found if "latencyMs" in item]


def _read(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise CannotLoad(f"trtexec wrote no {path.name} that can be read: {e}") from e
    if not isinstance(found, list):
        raise CannotLoad(f"trtexec wrote no list into {path.name}")
    return found
