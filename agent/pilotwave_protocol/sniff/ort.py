"""Read an ONNX Runtime file (`.ort`): format version, opset, inputs and outputs.

Slots are those of onnxruntime/core/flatbuffers/schema/ort.fbs.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from pilotwave_protocol.sniff import flatbuffer
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import DYNAMIC, Sniffed, Tensor
from pilotwave_protocol.sniff.onnx import DTYPES, runtime_for

_FORMAT, _MODEL = 0, 1
_IR, _OPSETS, _PRODUCER, _GRAPH = 0, 1, 2, 7
_NODE_ARGS, _INPUTS, _OUTPUTS = 1, 5, 6
_ARG_NAME, _ARG_TYPE = 0, 2
_TYPE_KIND, _TYPE_VALUE = 1, 2
_IS_TENSOR = 1
_MAX_PORTS = 1024
_ELEMENT, _SHAPE = 0, 1
_DIM_VALUE, _DIM_KIND, _DIM_NUMBER, _IS_NUMBER = 0, 0, 1, 1


def read_ort(data: memoryview) -> Sniffed:
    """Describe a model from its bytes; raise BadModel if they are not one."""
    session = flatbuffer.root(data)
    model = session.table(_MODEL)
    graph = model.table(_GRAPH) if model else None
    if model is None or graph is None:
        raise BadModel("the ONNX Runtime file holds no graph")
    opsets = {o.text(0): o.number(1, "q") for o in model.tables(_OPSETS)}
    opset, ir_version = opsets.get("", opsets.get("ai.onnx", 0)), model.number(_IR, "q")
    arguments = {a.text(_ARG_NAME): a for a in graph.tables(_NODE_ARGS)}
    words: dict[str, str | int] = {
        "format_version": session.text(_FORMAT, 32),
        "ir_version": ir_version,
        "opset": opset,
        "producer": model.text(_PRODUCER),
    }
    return Sniffed(
        format="ort",
        runtime="onnxruntime",
        runtime_version=runtime_for({"": opset}, ir_version),
        inputs=_ports(graph.texts(_INPUTS), arguments),
        outputs=_ports(graph.texts(_OUTPUTS), arguments),
        details={name: word for name, word in words.items() if word},
    )


def _ports(names: Iterable[str], arguments: dict[str, flatbuffer.Table]) -> tuple[Tensor, ...]:
    found = list(islice(names, _MAX_PORTS + 1))
    if len(found) > _MAX_PORTS:
        raise BadModel(f"it has more than {_MAX_PORTS} inputs or outputs")
    return tuple(_port(name, arguments.get(name)) for name in found)


def _port(name: str, argument: flatbuffer.Table | None) -> Tensor:
    kind = argument.table(_ARG_TYPE) if argument else None
    tensor = kind.table(_TYPE_VALUE) if kind else None
    if kind is None or tensor is None or kind.number(_TYPE_KIND, "B") != _IS_TENSOR:
        raise BadModel(f"{name!r} is not a tensor, which a device cannot check")
    dtype = DTYPES.get(tensor.number(_ELEMENT, "i"))
    if dtype is None:
        raise BadModel(f"{name!r} has an element type that ONNX does not define")
    shape = tensor.table(_SHAPE)
    if shape is None:
        return Tensor(name, dtype, None)
    if shape.count(0) > flatbuffer.MAX_RANK:
        raise BadModel(f"{name!r} has {shape.count(0)} dimensions")
    return Tensor(name, dtype, tuple(map(_size, shape.tables(0))))


def _size(dimension: flatbuffer.Table) -> int:
    value = dimension.table(_DIM_VALUE)
    if value is None or value.number(_DIM_KIND, "b") != _IS_NUMBER:
        return DYNAMIC
    size = value.number(_DIM_NUMBER, "q")
    return size if size >= 0 else DYNAMIC
