"""Where tensors lie in a model file: safetensors and ONNX, also inside of tar and stored zip."""

from __future__ import annotations

import io
import json
import math
import tarfile
import zipfile
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import numpy as np

from pilotwave_protocol.delta.arrays import Bytes
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.protobuf import LEN, VARINT, Field, fields, text, varints

_FLOATS = ("<f2", "<f4", "<f8")
_BY_KIND = (  # NumPy's type, and who calls it so in safetensors and ONNX
    ("<f8", "F64", 11),
    ("<f4", "F32", 1),
    ("<f2", "F16", 10),
    ("<u2", "BF16", 16),
    ("<i8", "I64", 7),
    ("<i8", "U64", 13),
    ("<i4", "I32", 6),
    ("<i4", "U32", 12),
    ("<i2", "I16", 5),
    ("<i2", "U16", 4),
    ("|i1", "I8", 3),
    ("|i1", "U8", 2),
)
_SAFETENSORS = {word: dtype for dtype, word, _ in _BY_KIND}
_ONNX = {number: dtype for dtype, _, number in _BY_KIND}
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_MAX_HEADER = 100 << 20
_MOST_DIMS = 8


class Tensor(NamedTuple):
    """`size` bytes from `start` on that hold numbers of NumPy's type `dtype`, `row` numbers for
    each index of the first dimension: of a layer's weights, those of one output."""

    name: str
    dtype: str
    start: int
    size: int
    row: int

    @property
    def end(self) -> int:
        return self.start + self.size


def find(data: bytes) -> list[Tensor]:
    """Return the float tensors of a model file; none if it is of another kind, or damaged."""
    return [t for t in _found(memoryview(data)) if t.dtype in _FLOATS]


def find_all(data: Bytes) -> list[Tensor]:
    """Return all tensors of a model file or of those in an archive; none if there are none."""
    view = memoryview(cast(Any, data)) if len(data) else memoryview(b"")
    found = []
    for name, start, size in [("", 0, len(view)), *_members(view)]:
        inner = _found(view[start : start + size])
        found += [t._replace(name=f"{name}/{t.name}", start=start + t.start) for t in inner]
    return sorted(found, key=lambda tensor: tensor.start)


def _found(data: memoryview) -> list[Tensor]:
    for look in (_safetensors, _onnx):
        try:
            found = look(data)
        except (BadModel, ValueError, KeyError, TypeError):
            continue
        if found:
            return found
    return []


def _members(data: memoryview) -> Iterable[tuple[str, int, int]]:
    """Return name, start and size of what an archive holds as it is."""
    if bytes(data[257:262]) == b"ustar":
        look = _tar
    elif bytes(data[:4]) == b"PK\x03\x04":
        look = _zip
    else:
        return []
    try:
        return look(data)
    except Exception:  # names are hints: whatever a damaged archive does, its content is aligned
        return []


def _tar(data: memoryview) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=_Reader(data), mode="r:") as archive:
        return [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]


def _zip(data: memoryview) -> list[tuple[str, int, int]]:
    found = []
    with zipfile.ZipFile(_Reader(data)) as archive:
        for m in archive.infolist():
            if m.compress_type == zipfile.ZIP_STORED:
                at = m.header_offset + 26
                lengths = (int.from_bytes(data[at + k : at + k + 2], "little") for k in (0, 2))
                found.append((m.filename, at + 4 + sum(lengths), m.file_size))
    return found


class _Reader(io.RawIOBase):
    """A file over bytes that are mapped: nothing is copied but what is read."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(offset + (0, self._at, len(self._data))[whence], 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._at + size
        found = bytes(self._data[self._at : end])
        self._at += len(found)
        return found


def _safetensors(data: memoryview) -> list[Tensor]:
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(_MAX_HEADER, len(data) - 8):
        return []
    begin = 8 + size
    found = []
    for name, entry in json.loads(bytes(data[8:begin])).items():
        if name == "__metadata__" or entry["dtype"] not in _SAFETENSORS:
            continue
        low, high = entry["data_offsets"]
        if not 0 <= low <= high <= len(data) - begin:
            raise ValueError(f"{name} lies outside of the file")
        dtype, row = _SAFETENSORS[entry["dtype"]], _row(entry["shape"])
        found.append(Tensor(name, dtype, begin + low, high - low, row))
    return found


def _onnx(data: memoryview) -> list[Tensor]:
    graphs = [f.data for f in fields(data) if (f.tag, f.wire) == (_GRAPH, LEN)]
    tensors = [
        list(fields(f.data))
        for graph in graphs
        for f in fields(graph)
        if (f.tag, f.wire) == (_INITIALIZER, LEN)
    ]
    origin = _address(data)
    found = (_initializer(parts, origin) for parts in tensors)
    return [t for t in found if t is not None]


def _initializer(parts: list[Field], origin: int) -> Tensor | None:
    name, kind, raw = "", 0, None
    shape: list[int] = []
    for part in parts:
        if part.tag == _DIMS:
            shape += [part.number] if part.wire == VARINT else varints(part.data)
        elif (part.tag, part.wire) == (_DATA_TYPE, VARINT):
            kind = part.number
        elif (part.tag, part.wire) == (_NAME, LEN):
            name = text(part.data)
        elif (part.tag, part.wire) == (_RAW_DATA, LEN) and len(part.data):
            raw = part.data
    if raw is None or kind not in _ONNX:
        return None
    return Tensor(name, _ONNX[kind], _address(raw) - origin, len(raw), _row(shape))


def _row(shape: list[Any]) -> int:
    """Return how many numbers belong to each index of the first dimension; 0 for what is none."""
    others = shape[1:]
    whole = len(others) <= _MOST_DIMS and all(type(size) is int for size in others)
    return math.prod(others) if whole else 0


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)
