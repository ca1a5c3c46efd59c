"""Read the inputs and outputs of a TensorFlow Lite file (magic `TFL3`), by the slots of its schema.

Runtimes of device age differ in which files they survive, so offsets are all checked here first:
the oldest of them dies of a truncated file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from pilotwave_protocol.sniff import ethosu, flatbuffer
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import DYNAMIC, Sniffed, Tensor, main_precision

_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool",
    7: "int16", 8: "complex64", 9: "int8", 10: "float64", 11: "complex128", 12: "uint64",
    15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16",
}  # fmt: skip
_MODEL_VERSION, _MODEL_OPS, _MODEL_SUBGRAPHS, _MODEL_DESCRIPTION, _MODEL_BUFFERS = 0, 1, 2, 3, 4
_MODEL_METADATA, _MODEL_SIGNATURES = 6, 7
_OP_CUSTOM_NAME = 1
_METADATA_NAME, _METADATA_BUFFER, _SIGNATURE_KEY = 0, 1, 2
_SMALL = ("int8", "uint8", "int4", "int16")
_CORAL = "edgetpu-custom-op"
_MAX_NAMES = 32
_MAX_STREAMS = 1024
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_OPERATOR_CODE, _OPERATOR_INPUTS = 0, 1
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
        if _is_filled(tensor, filled):
            size = math.prod(max(n, 0) for n in _sizes(tensor, _TENSOR_SHAPE))
            weights[_dtype(tensor)] += min(size, 1 << 62)
    outputs = _ports(graph.ints(_GRAPH_OUTPUTS), tensors)
    if not outputs:
        raise BadModel("the TensorFlow Lite graph has no output")
    custom = _custom_ops(model)
    return Sniffed(
        format="tflite",
        runtime="litert",
        inputs=_ports(graph.ints(_GRAPH_INPUTS), tensors),
        outputs=outputs,
        precision=main_precision(weights),
        accelerator=_accelerator(model, graph, tensors, custom),
        details=_details(model, graph, tensors, custom, filled),
    )


def _custom_ops(model: flatbuffer.Table) -> list[str]:
    names = (op.text(_OP_CUSTOM_NAME) for op in model.tables(_MODEL_OPS))
    return sorted({name for name in names if name})


def _accelerator(
    model: flatbuffer.Table,
    graph: flatbuffer.Table,
    tensors: list[flatbuffer.Table],
    custom: list[str],
) -> str | None:
    """Return the chip that a compiler left its operator for, if one did."""
    if _CORAL in custom:
        return "coral"
    if ethosu.OPERATOR in custom:
        return ethosu.chip(_streams(model, graph, tensors))
    return None


def _streams(
    model: flatbuffer.Table, graph: flatbuffer.Table, tensors: list[flatbuffer.Table]
) -> Iterator[bytes]:
    """Yield how the first input of each Ethos-U operator begins."""
    codes = [op.text(_OP_CUSTOM_NAME) == ethosu.OPERATOR for op in model.tables(_MODEL_OPS)]
    buffers = list(model.tables(_MODEL_BUFFERS))
    for operator in islice(graph.tables(_GRAPH_OPERATORS), _MAX_STREAMS):
        code = operator.number(_OPERATOR_CODE, "I")
        inputs = operator.ints(_OPERATOR_INPUTS)
        if code < len(codes) and codes[code] and inputs and 0 <= inputs[0] < len(tensors):
            number = tensors[inputs[0]].number(_TENSOR_BUFFER, "I")
            yield buffers[number].prefix(0, ethosu.HEAD) if number < len(buffers) else b""


def _details(
    model: flatbuffer.Table,
    graph: flatbuffer.Table,
    tensors: list[flatbuffer.Table],
    custom: list[str],
    filled: list[bool],
) -> dict[str, str | int]:
    signatures = model.tables(_MODEL_SIGNATURES)
    found: dict[str, str | int] = {"schema": model.number(_MODEL_VERSION, "I")}
    words = {
        "producer": model.text(_MODEL_DESCRIPTION),
        "custom_ops": ", ".join(custom[:_MAX_NAMES]),
        "min_runtime": _min_runtime(model),
        "signatures": ", ".join(s.text(_SIGNATURE_KEY) for s in islice(signatures, _MAX_NAMES)),
        "quantisation": _quantisation(graph, tensors, filled),
    }
    return found | {name: word for name, word in words.items() if word}


def _min_runtime(model: flatbuffer.Table) -> str:
    """Return the TensorFlow version from which on all its operators are known, if the file says."""
    wanted = [
        entry.number(_METADATA_BUFFER, "I")
        for entry in islice(model.tables(_MODEL_METADATA), _MAX_NAMES)
        if entry.text(_METADATA_NAME) == "min_runtime_version"
    ]
    buffers = list(model.tables(_MODEL_BUFFERS)) if wanted else []
    for number in wanted:
        short = number < len(buffers) and buffers[number].count(0) <= _MAX_NAMES
        text = bytes((buffers[number].ints(0, "B") if short else None) or b"").rstrip(b"\0")
        if text and text.replace(b".", b"").isdigit():
            return text.decode()
    return ""


def _quantisation(
    graph: flatbuffer.Table, tensors: list[flatbuffer.Table], filled: list[bool]
) -> str:
    """Say how it is quantised: inputs and outputs too (full), what flows inside (static), or its
    weights alone (dynamic), which older runtimes may answer wrongly without an error.
    """
    small = {i for i, t in enumerate(tensors) if _dtype(t) in _SMALL}
    if not small:
        return ""
    flowing = {i for i in small if not _is_filled(tensors[i], filled)}
    ports = {*(graph.ints(_GRAPH_INPUTS) or ()), *(graph.ints(_GRAPH_OUTPUTS) or ())}
    return ("full" if ports & flowing else "static") if flowing else "dynamic"


def _is_filled(tensor: flatbuffer.Table, filled: list[bool]) -> bool:
    buffer = tensor.number(_TENSOR_BUFFER, "I")
    return buffer < len(filled) and filled[buffer]


def _dtype(tensor: flatbuffer.Table) -> str:
    return _DTYPES.get(tensor.number(_TENSOR_TYPE, "b"), "?")


def _sizes(tensor: flatbuffer.Table, slot: int) -> tuple[int, ...]:
    return tensor.ints(slot, limit=flatbuffer.MAX_RANK) or ()


def _ports(indexes: tuple[int, ...] | None, tensors: list[flatbuffer.Table]) -> tuple[Tensor, ...]:
    found = []
    for i in indexes or ():
        if not 0 <= i < len(tensors):
            raise BadModel("an input or output points at no tensor")
        tensor = tensors[i]
        shape = _sizes(tensor, _TENSOR_SIGNATURE) or _sizes(tensor, _TENSOR_SHAPE)
        dtype = _dtype(tensor)
        if dtype == "?":
            raise BadModel("an input or output has a type or shape that a device cannot check")
        sizes = tuple(n if n >= 0 else DYNAMIC for n in shape)
        found.append(Tensor(tensor.text(_TENSOR_NAME), dtype, sizes))
    return tuple(found)
