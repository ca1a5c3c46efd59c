"""Tell a file's format from its first bytes, and whether loading it could run code in it.

The list of safe formats is positive: what is not recognised is not safe, because a pickle of
protocol 0 is plain text and passes any list of bad marks.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable

from pilotwave_protocol.sniff.archive import PICKLE, read_archive
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.executorch import read_executorch
from pilotwave_protocol.sniff.facts import Sniffed
from pilotwave_protocol.sniff.gguf import MARK as GGUF
from pilotwave_protocol.sniff.gguf import read_gguf
from pilotwave_protocol.sniff.hailo import MARK as HAILO
from pilotwave_protocol.sniff.hailo import read_hailo
from pilotwave_protocol.sniff.npu_blob import is_npu_blob, read_npu_blob
from pilotwave_protocol.sniff.ort import read_ort
from pilotwave_protocol.sniff.rknn import ENCRYPTED, RKNN, read_rknn

_EIM_MARK = b"Edge Impulse Linux impulse runner"
_PROGRAM = "it is a program, and running it runs whatever it holds"
_OLDPICKLE_LIMIT = 1 << 20
_CALLS = {"GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "BUILD"}
_ARCH = {62: "x86_64", 183: "aarch64", 40: "armv7l", 243: "riscv64"}


def by_magic(data: memoryview) -> Sniffed | None:
    """Return what the first bytes say for sure; None where they say nothing."""
    head = bytes(data[:16])
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return read_archive(data)
    if head[:1] == b"\x80" and 2 <= (head + b"\0\0")[1] <= 5:
        return Sniffed("pickle", None, unsafe=PICKLE)
    if head[4:8] == b"ORTM":
        return read_ort(data)
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return read_executorch(data)
    if head[4:8] == b"FT01":
        return Sniffed("executorch-data", None)
    if is_npu_blob(data):  # before programs: inside it is one for the NPU
        return read_npu_blob(data)
    if head[:4] == b"\x7fELF" or head[:2] == b"#!":
        return _program(data, head)
    if head[:4] == b"ftrt":
        return _plan(data)
    if head[4:5] == b"{" and b"ftrt" in bytes(data[:65536]):
        return Sniffed(
            "tensorrt-plan", "tensorrt"
        )  # after the metadata that Ultralytics puts there
    if head[:4] == b"\x89HDF":
        return _hdf5(data)
    for mark, read in _READERS.items():
        if head.startswith(mark):
            return read(data)
    if _is_safetensors(data):
        return Sniffed("safetensors", None)
    if _is_old_pickle(data):
        return Sniffed("pickle", None, unsafe=PICKLE)
    return None


_READERS: dict[bytes, Callable[[memoryview], Sniffed]] = {
    HAILO: read_hailo,
    RKNN: read_rknn,
    ENCRYPTED: read_rknn,
    GGUF: read_gguf,
    # Qualcomm tells nobody the rest of a context binary, so not which Hexagon it is for
    struct.pack(">IIII", 2, 3, 0, 1): lambda _: Sniffed("qnn-context", None, accelerator="hexagon"),
    b"RR_UPCVO": lambda _: Sniffed("openvino-blob", None),
    b"\x93NUMPY": lambda _: Sniffed("npy", None),
}


def _hdf5(data: memoryview) -> Sniffed:
    """An HDF5 model keeps its layers' description as JSON text inside."""
    if _holds(data, b'"class_name": "Lambda"') or _holds(data, b'"class_name":"Lambda"'):
        return Sniffed(
            "hdf5", None, unsafe="a Lambda layer in it holds Python code that Keras runs"
        )
    return Sniffed("hdf5", None, unsafe="an HDF5 model can hold code that Keras runs")


def _plan(data: memoryview) -> Sniffed:
    """Read the header of a plan as `trtexec --getPlanVersionOnly` does."""
    if len(data) < 28:
        raise BadModel("the engine is cut off in its header")
    if int.from_bytes(data[4:8], "little") != 0:  # a later layout, which nobody has told us of
        return Sniffed("tensorrt-plan", "tensorrt")
    version = ".".join(str(n) for n in data[24:27])
    details: dict[str, str | int] = {"tensorrt": f"{version}.{data[27]}"}
    # it may be opened by the TensorRT that made it and by no other
    return Sniffed("tensorrt-plan", "tensorrt", f"=={version}.*", details=details)


def _program(data: memoryview, head: bytes) -> Sniffed:
    if not _holds(data, _EIM_MARK):
        return Sniffed("program", None, unsafe=_PROGRAM)
    arch = None
    if head[:4] == b"\x7fELF" and len(data) > 20:
        machine = int.from_bytes(data[18:20], "little")
        arch = _ARCH.get(machine, f"machine {machine}")
    details: dict[str, str | int] = {"arch": arch} if arch else {}
    return Sniffed("eim", "edge-impulse", unsafe=_PROGRAM, arch=arch, details=details)


def _holds(data: memoryview, mark: bytes) -> bool:
    step = 1 << 20
    return any(mark in bytes(data[at : at + step + len(mark)]) for at in range(0, len(data), step))


def _is_safetensors(data: memoryview) -> bool:
    if len(data) < 10:
        return False
    size = int.from_bytes(data[:8], "little")
    return data[8] == ord("{") and 2 <= size <= len(data) - 8 and size <= 100 << 20


def _is_old_pickle(data: memoryview) -> bool:
    """Protocols 0 and 1 bear no mark: their opcodes are walked to the end, without running them."""
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(bytes(data[:_OLDPICKLE_LIMIT])):
            calls = calls or opcode.name in _CALLS
    except Exception:  # whatever the disassembler stumbles over is no pickle
        return False
    return calls
