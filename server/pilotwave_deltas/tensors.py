"""Where tensors of floats lie in a model file: safetensors and ONNX."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.protobuf import LEN, VARINT, Field, fields, text

_SAFETENSORS = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
_ONNX = {1: "<f4", 10: "<f2", 11: "<f8"}
_GRAPH, _INITIALIZER = 7, 5
_DATA_TYPE, _NAME, _RAW_DATA = 2, 8, 9
_MAX_HEADER = 100 << 20


class Tensor(NamedTuple):
    """`size` bytes from `start` on that hold floats of NumPy's type `dtype`."""

    name: str
    dtype: str
    start: int
    size: int


def find(data: bytes) -> list[Tensor]:
    """Return the float tensors of a model file; none if it is of another kind, or damaged."""
    for look in (_safetensors, _onnx):
        try:
            found = look(data)
        except (BadModel, ValueError, KeyError, TypeError):
            continue
        if found:
            return found
    return []


def _safetensors(data: bytes) -> list[Tensor]:
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(_MAX_HEADER, len(data) - 8):
        return []
    begin = 8 + size
    found = []
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__" or entry["dtype"] not in _SAFETENSORS:
            continue
        low, high = entry["data_offsets"]
        if not 0 <= low <= high <= len(data) - begin:
            raise ValueError(f"{name} lies outside of the file")
        found.append(Tensor(name, _SAFETENSORS[entry["dtype"]], begin + low, high - low))
    return found


def _onnx(data: bytes) -> list[Tensor]:
    graphs = [f.data for f in fields(memoryview(data)) if (f.tag, f.wire) == (_GRAPH, LEN)]
    tensors = [
        list(fields(f.data))
        for graph in graphs
        for f in fields(graph)
        if (f.tag, f.wire) == (_INITIALIZER, LEN)
    ]
    origin = _address(memoryview(data))
    found = (_initializer(parts, origin) for parts in tensors)
    return [t for t in found if t is not None]


def _initializer(parts: list[Field], origin: int) -> Tensor | None:
    name, kind, raw = "", 0, None
    for part in parts:
        if (part.tag, part.wire) == (_DATA_TYPE, VARINT):
            kind = part.number
        elif (part.tag, part.wire) == (_NAME, LEN):
            name = text(part.data)
        elif (part.tag, part.wire) == (_RAW_DATA, LEN) and len(part.data):
            raw = part.data
    if raw is None or kind not in _ONNX:
        return None
    return Tensor(name, _ONNX[kind], _address(raw) - origin, len(raw))


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)
