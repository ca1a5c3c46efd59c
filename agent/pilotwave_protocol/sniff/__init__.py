"""Say from a model file's bytes what it is: format, runtime, inputs, outputs, files it needs.

It needs no runtime and no ONNX package, reads untrusted bytes, and answers with a `Sniffed` or a
`BadModel`. What may be published is not decided here.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import (
    DYNAMIC,
    Sniffed,
    Tensor,
    compiled_for,
    missing_companion,
)
from pilotwave_protocol.sniff.magic import by_magic
from pilotwave_protocol.sniff.onnx import read_onnx
from pilotwave_protocol.sniff.openvino import read_openvino
from pilotwave_protocol.sniff.tflite import read_tflite
from pilotwave_protocol.sniff.wheelhouse import is_wheelhouse, read_wheelhouse

__all__ = [
    "DYNAMIC",
    "UNKNOWN",
    "BadModel",
    "Sniffed",
    "Tensor",
    "compiled_for",
    "missing_companion",
    "sniff_bytes",
    "sniff_file",
]

_PROMISED = {"hef": "hailo-hef", "rknn": "rknn", "gguf": "gguf"}
UNKNOWN = Sniffed("unknown", None, unsafe="its format is not one that is known to be safe")


def sniff_file(path: Path) -> Sniffed:
    """Describe the file at `path`; BadModel names it. OSError where it cannot be read."""
    try:
        if path.stat().st_size == 0:
            raise BadModel("the file is empty")
        with path.open("rb") as file:
            # Not closed by hand: the views in a BadModel's traceback would still hold it.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return sniff_bytes(memoryview(mapped), path.name)
    except BadModel as e:
        raise BadModel(f"{path}: {e}") from None


def sniff_bytes(data: memoryview, name: str) -> Sniffed:
    """Describe a file from its bytes; `name` decides between text formats and is no proof.

    A name that promises a compiled format and a content of another is a BadModel.
    """
    found = _by_content(data, name)
    stem, _, suffix = name.lower().rpartition(".")
    promised = _PROMISED.get(suffix, found.format)
    if found.format != promised:
        raise BadModel(f"its name says {promised}; by its content it is {found.format}")
    if found.format == "tflite" and stem.endswith("_edgetpu") and found.accelerator != "coral":
        raise BadModel("its name says that it was compiled for an Edge TPU; nothing in it was")
    return found


def _by_content(data: memoryview, name: str) -> Sniffed:
    if bytes(data[4:8]) == b"TFL3":
        return read_tflite(data)
    suffix = name.rsplit(".", 1)[-1].lower()
    head = bytes(data[:64]).lstrip()
    if head.startswith((b"<?xml", b"<net")):
        return read_openvino(data, name) if suffix == "xml" or b"<net" in head else UNKNOWN
    if suffix == "txt" and is_wheelhouse(data):
        return read_wheelhouse(data)
    if found := by_magic(data):
        return found
    if suffix == "onnx" or (data[0] == 0x08 and len(data) > 1 and 3 <= data[1] <= 32):
        return _onnx(data, certain=suffix == "onnx")
    return UNKNOWN


def _onnx(data: memoryview, *, certain: bool) -> Sniffed:
    try:
        return read_onnx(data)
    except BadModel as e:
        if certain:
            raise BadModel(f"it is no valid ONNX model: {e}") from None
        return UNKNOWN
