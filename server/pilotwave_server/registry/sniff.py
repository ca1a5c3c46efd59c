"""What a file is, by its bytes: the few formats that can be told for sure, and those that are known
to run code when they are loaded. Nothing is executed or unpacked.

A name proves nothing (a pickle renamed to .onnx loads nowhere, but passes a list of forbidden
magics), so a declared format that is known here must be confirmed by its structure.
"""

from __future__ import annotations

import json
import pickletools
import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

HEAD = 64
PICKLE_LIMIT = 1 << 20
_ONNX_FIELDS = {*range(1, 9), 14, 20, 25, 26}
_CALLS = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}

# Formats that can run code when loaded, or hide what can. Each with the bytes that betray it.
UNSAFE_MAGICS = {
    "zip (TorchScript, .keras, .npz)": re.compile(rb"PK(?:\x03\x04|\x05\x06)"),
    "HDF5": re.compile(rb"\x89HDF\r\n\x1a\n"),
    "gzip": re.compile(rb"\x1f\x8b"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "bzip2": re.compile(rb"BZh[1-9]1AY"),
    "zstandard": re.compile(rb"\x28\xb5\x2f\xfd"),
    "ELF program": re.compile(rb"\x7fELF"),
    "script": re.compile(rb"#!"),
    "NumPy array of objects": re.compile(rb"\x93NUMPY.{4,8}\{'descr': '\|O'", re.DOTALL),
}


def unsafe_kind(stream: BinaryIO) -> str | None:
    """Name the format of a file that can run code when it is loaded, or None."""
    stream.seek(0)
    head = stream.read(HEAD)
    for kind, magic in UNSAFE_MAGICS.items():
        if magic.match(head):
            return kind
    return "pickle" if _is_pickle(stream, head) else None


def _is_pickle(stream: BinaryIO, head: bytes) -> bool:
    """Protocols 2 to 5 say so; 0 and 1 are recognised by walking their opcodes to the end."""
    if re.match(rb"\x80[\x02-\x05]", head):
        return True
    stream.seek(0)
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(stream.read(PICKLE_LIMIT)):
            calls = calls or opcode.name in _CALLS
    except Exception:  # whatever the disassembler stumbles over is no pickle
        return False
    return calls


def is_onnx(stream: BinaryIO, size: int) -> bool:
    """Whether the file is one ModelProto: its top-level fields add up to the whole file, and there
    is an IR version and a graph. Fields are skipped, not read."""
    fields = {}
    try:
        for number, value in _protobuf_fields(stream, size):
            if number not in _ONNX_FIELDS:
                return False
            fields[number] = value
    except ValueError:
        return False
    return 3 <= fields.get(1, 0) <= 64 and fields.get(7, 0) > 0


def _protobuf_fields(stream: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yield (field number, varint value or length in bytes); ValueError where it makes no sense."""
    stream.seek(0)
    position = 0
    while position < size:
        tag, position = _varint(stream, position)
        number, wire = tag >> 3, tag & 7
        value, after = _varint(stream, position)
        if wire == 0:
            position = after
        elif wire == 2:
            position = after + value
            stream.seek(position)
        else:
            raise ValueError("a wire type that ONNX does not use at its top level")
        if position > size:
            raise ValueError("a field reaches beyond the end")
        yield number, value


def _varint(stream: BinaryIO, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = stream.read(1)
        if not byte:
            raise ValueError("cut short")
        position += 1
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number too long")


def is_safetensors(stream: BinaryIO, size: int) -> bool:
    """Whether the header is JSON and its tensors lie one after the other up to the very end."""
    stream.seek(0)
    raw = stream.read(8)
    if len(raw) < 8:
        return False
    (length,) = struct.unpack("<Q", raw)
    if not 2 <= length <= min(size - 8, 100 << 20):
        return False
    try:
        header = json.loads(stream.read(length))
        spans = sorted(tuple(t["data_offsets"]) for n, t in header.items() if n != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    end = 0
    for span in spans:
        if len(span) != 2 or span[0] != end or not isinstance(span[1], int) or span[1] < end:
            return False
        end = span[1]
    return bool(end == size - 8 - length)


def _magic_at(offset: int, magic: bytes) -> Callable[[BinaryIO, int], bool]:
    def check(stream: BinaryIO, size: int) -> bool:
        stream.seek(offset)
        return stream.read(len(magic)) == magic

    return check


CONFIRMED: dict[str, Callable[[BinaryIO, int], bool]] = {
    "onnx": is_onnx,
    "ort": _magic_at(4, b"ORTM"),
    "tflite": _magic_at(4, b"TFL3"),
    "gguf": _magic_at(0, b"GGUF"),
    "safetensors": is_safetensors,
}
"""Formats that can be confirmed by their bytes."""

BY_RUNTIME = {"onnxruntime": ("onnx", "ort"), "litert": ("tflite",), "tflite": ("tflite",)}
BY_SUFFIX = {".onnx": "onnx", ".ort": "ort", ".tflite": "tflite", ".safetensors": "safetensors"}
