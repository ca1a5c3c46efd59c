"""Tell a file's format from its first bytes, and whether loading it could run code in it.

The list of safe formats is positive: what is not recognised is not safe, because a pickle of
protocol 0 is plain text and passes any list of bad marks.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import Sniffed

_EIM_MARK = b"Edge Impulse Linux impulse runner"
_PICKLE = "it holds Python pickles, and loading a pickle can run any code"
_PROGRAM = "it is a program, and running it runs whatever it holds"
_OLD_PICKLE_LIMIT = 1 << 20
_CALLS = {"GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "BUILD"}
_ARCH = {62: "x86_64", 183: "aarch64", 40: "armv7l", 243: "riscv64"}


def by_magic(data: memoryview) -> Sniffed | None:
    """Return what the first bytes say for sure; None where they say nothing."""
    head = bytes(data[:16])
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(data)
    if head[:1] == b"\x80" and 2 <= (head + b"\0\0")[1] <= 5:
        return Sniffed("pickle", None, unsafe=_PICKLE)
    if head[4:8] == b"ORTM":
        return Sniffed("ort", "onnxruntime")
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return _executorch(data)
    if head[4:8] == b"FT01":
        return Sniffed("executorch-data", None)
    if head[:4] == b"\x7fELF" or head[:2] == b"#!":
        return _program(data, head)
    if head[:4] == b"ftrt":
        return _plan(data)
    if head[4:5] == b"{" and b"ftrt" in bytes(data[:65536]):
        return Sniffed(
            "tensorrt-plan", "tensorrt"
        )  # after the metadata that Ultralytics puts there
    for mark, name, runtime, unsafe in _MARKS:
        if head.startswith(mark):
            return Sniffed(name, runtime, unsafe=unsafe)
    if _is_safetensors(data):
        return Sniffed("safetensors", None)
    if _is_old_pickle(data):
        return Sniffed("pickle", None, unsafe=_PICKLE)
    return None


_MARKS: tuple[tuple[bytes, str, str | None, str | None], ...] = (
    (b"RR_UPCVO", "openvino-blob", None, None),
    (b"\x01HEF", "hailo-hef", "hailo", None),
    (b"RKNN", "rknn", "rknn", None),
    (b"GGUF", "gguf", "llama.cpp", None),
    (b"\x89HDF", "hdf5", None, "an HDF5 model can hold code that Keras runs"),
    (b"\x93NUMPY", "npy", None, None),
)


def _executorch(data: memoryview) -> Sniffed:
    if bytes(data[8:12]) == b"eh00" and len(data) >= 32:
        program, segments = struct.unpack_from("<QQ", data, 16)
        if len(data) < max(program, segments):
            raise BadModel(f"the file is cut off: {len(data)} bytes of {max(program, segments)}")
    return Sniffed("executorch", "executorch")


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
    details: dict[str, str | int] = {}
    if head[:4] == b"\x7fELF" and len(data) > 20:
        machine = int.from_bytes(data[18:20], "little")
        details["arch"] = _ARCH.get(machine, f"machine {machine}")
    return Sniffed("eim", "edge-impulse", unsafe=_PROGRAM, details=details)


def _holds(data: memoryview, mark: bytes) -> bool:
    step = 1 << 20
    return any(mark in bytes(data[at : at + step + len(mark)]) for at in range(0, len(data), step))


def _zip(data: memoryview) -> Sniffed:
    try:
        with zipfile.ZipFile(_View(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as e:
        raise BadModel("it is a damaged or cut off zip archive") from e
    inner = {name.split("/", 1)[-1] for name in names}
    if "MAR-INF/MANIFEST.json" in names:
        return Sniffed("torchserve-mar", None, unsafe="a MAR archive holds Python code")
    if "archive_format" in inner:
        return Sniffed("torch-export", "torch", unsafe=_PICKLE)
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        lite = "bytecode.pkl" in inner
        return Sniffed("torchscript-lite" if lite else "torchscript", "torch", unsafe=_PICKLE)
    if any(name.endswith(".pkl") for name in inner):
        return Sniffed("pickle", None, unsafe=_PICKLE)
    return Sniffed("zip", None, unsafe="it is an archive, and devices open no archives")


def _is_safetensors(data: memoryview) -> bool:
    if len(data) < 10:
        return False
    size = int.from_bytes(data[:8], "little")
    return data[8] == ord("{") and 2 <= size <= len(data) - 8 and size <= 100 << 20


def _is_old_pickle(data: memoryview) -> bool:
    """Protocols 0 and 1 bear no mark: their opcodes are walked to the end, without running them."""
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(bytes(data[:_OLD_PICKLE_LIMIT])):
            calls = calls or opcode.name in _CALLS
    except Exception:  # whatever the disassembler stumbles over is no pickle
        return False
    return calls


class _View(io.RawIOBase):
    """A read-only file over a memoryview, so that a large archive is not copied to be listed."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._at + size
        chunk = bytes(self._data[self._at : end])
        self._at += len(chunk)
        return chunk
