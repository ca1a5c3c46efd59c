"""Read the inputs and outputs of a TensorFlow Lite file (magic `TFL3`), by the slots of its schema.

Runtimes of device age differ in which files they survive, so offsets are all checked here first:
the oldest of them dies of a truncated file.
"""

from __future__ import annotations

import math
from collections import Counter

from pilotwave_protocol.sniff import flatbuffer
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import DYNAMIC, Sniffed, Tensor, main_precision

_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool",
    7: "int16", 8: "complex64", 9: "int8", 10: "float64", 11: "complex128", 12: "uint64",
    15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16",
}  # fmt: skip
_MODEL_VERSION, _MODEL_SUBGRAPHS, _MODEL_DESCRIPTION, _MODEL_BUFFERS = 0, 2, 3, 4
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS = 0, 1, 2
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_SIGNATURE = 0, 1, 2, 3, 7


def read_tflite(data: memoryview) -> Sniffed:
    """Describe a TensorFlow Lite model from its bytes; raise BadModel if they are not one."""
    if bytes(data[4:8]) != b"TFL3":
        raise BadModel("it does not carry the TFL3 mark")
    model = flatbuffer.root(data)
    graph = next(model.tables(_MODEL_SUBGRAPHS), None)
    if graph is None:
        raise BadModel("the TensorFlow Lite file holds no graph")
    filled = [buffer.count(0) > 0 for buffer in model.tables(_MODEL_BUFFERS)]
    tensors = list(graph.tables(_GRAPH_TENSORS))
    weights = Counter[str]()
    for tensor in tensors:
        buffer = tensor.number(_TENSOR_BUFFER, "I")
        if buffer < len(filled) and filled[buffer]:
            size = math.prod(max(n, 0) for n in tensor.ints(_TENSOR_SHAPE) or ())
            weights[_dtype(tensor)] += min(size, 1 << 62)
    outputs = _ports(graph.ints(_GRAPH_OUTPUTS), tensors)
    if not outputs:
        raise BadModel("the TensorFlow Lite graph has no output")
    details: dict[str, str | int] = {"schema": model.number(_MODEL_VERSION, "I")}
    if description := model.text(_MODEL_DESCRIPTION):
        details["producer"] = description
    return Sniffed(
        format="tflite",
        runtime="litert",
        inputs=_ports(graph.ints(_GRAPH_INPUTS), tensors),
        outputs=outputs,
        precision=main_precision(weights),
        details=details,
    )


def _dtype(tensor: flatbuffer.Table) -> str:
    return _DTYPES.get(tensor.number(_TENSOR_TYPE, "b"), "?")


def _ports(indexes: tuple[int, ...] | None, tensors: list[flatbuffer.Table]) -> tuple[Tensor, ...]:
    found = []
    for i in indexes or ():
        if not 0 <= i < len(tensors):
            raise BadModel("an input or output points at no tensor")
        tensor = tensors[i]
        shape = tensor.ints(_TENSOR_SIGNATURE) or tensor.ints(_TENSOR_SHAPE) or ()
        dtype = _dtype(tensor)
        if dtype == "?" or len(shape) > 64:
            raise BadModel("an input or output has a type or shape that a device cannot check")
        sizes = tuple(n if n >= 0 else DYNAMIC for n in shape)
        found.append(Tensor(tensor.text(_TENSOR_NAME), dtype, sizes))
    return tuple(found)
