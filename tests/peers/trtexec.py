"""A stand-in for NVIDIA's `trtexec`, as a program on PATH: no GPU is needed, ONNX Runtime computes.

It follows the interface of TensorRT 10 as its source has it (samples/trtexec, samples/common): the
flags that Pilotwave uses, the plan's header, the JSON of --exportOutput and --exportTimes, the
words of its complaints. It refuses flags that it does not know, as the original does.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import time
from pathlib import Path

VERSION = (10, 3, 0, 26)
SM = "sm_87"
_FLAGS = {"skipInference", "fp16", "int8", "bf16"}
_WORDS = {
    "onnx", "saveEngine", "loadEngine", "loadInputs", "shapes", "minShapes", "optShapes",
    "maxShapes", "exportOutput", "exportTimes", "iterations", "duration", "warmUp",
}  # fmt: skip


def install(folder: Path, version: tuple[int, int, int, int] = VERSION) -> Path:
    """Lay out `bin/trtexec` and the library beside it that tells the version; return `bin`."""
    for name in ("bin", "lib"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    number = ".".join(map(str, version[:3]))
    (folder / "lib" / f"libnvinfer.so.{number}").touch()
    program = folder / "bin" / "trtexec"
    here = Path(__file__).resolve()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(here.parents[2])!r})\n"
        f"from tests.peers import trtexec\ntrtexec.VERSION = {version!r}\ntrtexec.main()\n"
    )
    program.chmod(0o755)
    return folder / "bin"


def main() -> None:
    number = "{}{:02}{:02}".format(*VERSION)
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] [b{VERSION[3]}]")
    try:
        words = read(sys.argv[1:])
        if "onnx" in words:
            build(words)
        else:
            run(words)
    except Complaint as e:
        print(f"[11/25/2026-10:00:00] [E] {e}")
        print(f"&&&& FAILED TensorRT.trtexec [TensorRT v{number}]")
        raise SystemExit(1) from None
    print(f"&&&& PASSED TensorRT.trtexec [TensorRT v{number}]")


class Complaint(Exception):
    """What the original prints after [E] before it ends with status 1."""


def read(arguments: list[str]) -> dict[str, str]:
    words = {}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in (_WORDS if value else _FLAGS):
            raise Complaint(f"Unknown option: {argument}")
        words[name] = value
    return words


def header() -> bytes:
    """The first 28 bytes of a plan: tag, serialization version 0, TensorRT's version at 24."""
    return b"ftrt" + struct.pack("<IQQ", 0, 0, 0) + bytes(VERSION)


def build(words: dict[str, str]) -> None:
    """The stand-in's engine is the header, the GPU it is for, and the network itself."""
    network = Path(words["onnx"]).read_bytes()
    session(network)
    Path(words["saveEngine"]).write_bytes(header() + SM.encode().ljust(8) + network)
    builds = Path(sys.argv[0]).parent.parent / "builds"  # for tests: how often it was called
    with builds.open("a") as log:
        log.write(json.dumps(words) + "\n")


def session(network: bytes):  # type: ignore[no-untyped-def]
    import onnxruntime as ort

    try:
        return ort.InferenceSession(network, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise Complaint(f"ModelImporter.cpp: failed to parse ONNX model: {e}") from e


def run(words: dict[str, str]) -> None:
    import numpy as np

    raw = Path(words["loadEngine"]).read_bytes()
    if raw[:28] != header():
        expecting, got = ".".join(map(str, VERSION)), ".".join(map(str, raw[24:28]))
        raise Complaint(
            "Error[1]: IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
            "assertion stdVersionRead == kSERIALIZATION_VERSION failed. The engine plan file is "
            "not compatible with this version of TensorRT, expecting library version "
            f"{expecting} got {got}"
        )
    model = session(raw[36:])
    shapes = dict(item.rsplit(":", 1) for item in words.get("shapes", "").split(",") if item)
    feeds = {}
    for item in words["loadInputs"].split(","):
        name, path = item.split(":", 1)
        sizes = [int(n) for n in shapes[name].split("x")] if name in shapes else None
        known = next(t for t in model.get_inputs() if t.name == name)
        flat = np.fromfile(path, np.float32 if known.type == "tensor(float)" else np.int64)
        feeds[name] = flat.reshape(sizes or known.shape)
    times = []
    for _ in range(int(words.get("iterations", "10"))):
        begun = time.perf_counter()
        outputs = model.run(None, feeds)
        times.append((time.perf_counter() - begun) * 1000)
    if path := words.get("exportOutput"):
        items = [
            {
                "name": t.name,
                "dimensions": "x".join(map(str, array.shape)),
                "values": [v if math.isfinite(v) else 0 for v in map(float, array.ravel())],
            }
            for t, array in zip(model.get_outputs(), outputs, strict=True)
        ]
        Path(path).write_text(json.dumps(items))
    if path := words.get("exportTimes"):
        Path(path).write_text(json.dumps([{"computeMs": t, "latencyMs": t} for t in times]))


if __name__ == "__main__":
    main()
