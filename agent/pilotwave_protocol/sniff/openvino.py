"""Read the inputs and outputs of an OpenVINO IR (`model.xml`), whose weights lie in `model.bin`.

Document types and entities are refused before anything is expanded.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from xml.parsers import expat

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import DYNAMIC, Sniffed, Tensor, main_precision

_DTYPES = {
    "f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16", "boolean": "bool",
    "i4": "int4", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "u4": "uint4",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64", "string": "string",
    "fp16": "float16", "fp32": "float32", "fp64": "float64", "bool": "bool",
}  # fmt: skip
_MAX_BYTES = 64 << 20
_MAX_DEPTH = 64


@dataclass
class _Layer:
    kind: str = ""
    name: str = ""
    output_names: str = ""
    dtype: str = ""
    shape: str | None = None
    dims: list[int] = field(default_factory=list)


@dataclass
class _Reader:
    version: str = ""
    path: list[str] = field(default_factory=list)
    layer: _Layer = field(default_factory=_Layer)
    text: str = ""
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    weights: Counter[str] = field(default_factory=Counter)
    bin_bytes: int = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.path:
            if tag != "net":
                raise BadModel("it is XML but no OpenVINO IR")
            self.version = attributes.get("version", "")
        if len(self.path) > _MAX_DEPTH:
            raise BadModel(f"its elements are nested more than {_MAX_DEPTH} deep")
        self.path.append(tag)
        self.text = ""
        if self.path == ["net", "layers", "layer"]:
            self.layer = _Layer(
                attributes.get("type", ""),
                attributes.get("name", ""),
                attributes.get("output_names", ""),
            )
        elif self.path == ["net", "layers", "layer", "data"]:
            self._data(attributes)
        elif tag == "port" and self.path[1:3] == ["layers", "layer"]:
            self.layer.dims = []
            self.layer.dtype = self.layer.dtype or attributes.get("precision", "").lower()
            if self.layer.kind == "Parameter" and attributes.get("names"):
                self.layer.output_names = attributes["names"]

    def _data(self, attributes: dict[str, str]) -> None:
        self.layer.dtype = attributes.get("element_type", "")
        self.layer.shape = attributes.get("shape")
        if self.layer.kind == "Const":
            size = _number(attributes.get("size", "0"))
            self.bin_bytes = max(self.bin_bytes, _number(attributes.get("offset", "0")) + size)
            sizes = (attributes.get("shape") or "").split(",")
            elements = math.prod(max(_number(s), 0) for s in sizes[:64] if s.strip())
            self.weights[_DTYPES.get(self.layer.dtype, "?")] += min(elements, 1 << 62)

    def characters(self, text: str) -> None:
        if self.path[-1] == "dim" and len(self.text) < 64:
            self.text += text

    def end(self, tag: str) -> None:
        if tag == "dim" and len(self.layer.dims) < 64:
            size = _number(self.text)
            self.layer.dims.append(size if size >= 0 else DYNAMIC)
        elif self.path == ["net", "layers", "layer"]:
            if self.layer.kind == "Parameter":
                self.inputs.append(self._port())
            elif self.layer.kind == "Result":
                self.outputs.append(self._port())
        self.path.pop()

    def _port(self) -> Tensor:
        layer = self.layer
        name = layer.output_names.split(",")[0] or layer.name.split("/sink_port")[0]
        if layer.dtype not in _DTYPES or not name:
            raise BadModel("an input or output has a name or type that a device cannot check")
        return Tensor(name, _DTYPES[layer.dtype], None if layer.shape == "..." else self._sizes())

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.layer.dims)


def read_openvino(data: memoryview, name: str) -> Sniffed:
    """Describe an IR from its XML; `name` is the file's, whose weights are `<stem>.bin`."""
    if len(data) > _MAX_BYTES:
        raise BadModel(f"the XML is larger than {_MAX_BYTES >> 20} MB")
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(bytes(data), True)
    except expat.ExpatError as e:
        raise BadModel(f"the XML is damaged: {expat.ErrorString(e.code)}, line {e.lineno}") from e
    if not reader.outputs:
        raise BadModel("the IR has no output")
    return Sniffed(
        format="openvino-ir",
        runtime="openvino",
        inputs=tuple(reader.inputs),
        outputs=tuple(reader.outputs),
        needs={name.rsplit(".", 1)[0] + ".bin": reader.bin_bytes} if reader.bin_bytes else {},
        precision=main_precision(reader.weights),
        details={"ir_version": reader.version, "weight_bytes": reader.bin_bytes},
    )


def _refuse_doctype(*_: object) -> None:
    raise BadModel("the XML declares a document type, which no IR needs")


def _number(text: str) -> int:
    try:
        return int(text.strip()[:20])
    except ValueError as e:
        raise BadModel("a size in the XML is not a number") from e
