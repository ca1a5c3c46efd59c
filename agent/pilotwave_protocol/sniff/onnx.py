"""Read an ONNX file: its inputs and outputs, what wrote it, and which files it needs beside it.

Field numbers are those of onnx.proto3. Weights are stepped over, never loaded. Anything that two
readers could understand differently (a message split over two fields) is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pilotwave_protocol.sniff import protobuf
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import DYNAMIC, Sniffed, Tensor, main_precision

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn",
    18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4_e2m1", 24: "float8_e8m0", 25: "uint2", 26: "int2",
}  # fmt: skip

# The lowest ONNX Runtime that was seen to load, or is documented to load, this opset and IR.
_RUNTIME_FOR = [(17, 8, "1.13"), (18, 8, "1.14"), (19, 9, "1.16"), (20, 9, "1.17"),
                (21, 10, "1.18"), (23, 11, "1.23"), (28, 14, "1.32")]  # fmt: skip
# The same for the domain of classic learners, of which each ONNX Runtime knows one version at most,
# and refuses a file that names a newer one, used or not ("ValidateOpsetForDomain").
_RUNTIME_FOR_ML = [(2, "1.8"), (3, "1.11"), (4, "1.17"), (5, "1.18")]
_ML = "ai.onnx.ml"

# An execution provider's compiled part of a graph, in a node of ONNX Runtime (EPContext); of those
# that compile for one kind of chip alone, by the name that the node gives as its source
_COMPILED = ("com.microsoft", "EPContext")
_COMPILERS = {"qnn": "hexagon", "vitisai": "amd_npu", "tensorrt": "cuda", "nvtensorrtrtx": "cuda"}
_EMBEDDED = 1

_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_MAX_NAMES = 32
_MAX_DEPTH = 16
_MAX_PORTS = 1024
_COUNT = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass
class _Seen:
    """What the walk over graphs, subgraphs and functions has gathered."""

    external: dict[str, int] = field(default_factory=dict)  # by file, where its last tensor ends
    weights: Counter[str] = field(default_factory=Counter)
    domains: set[str] = field(default_factory=set)
    ops: Counter[str] = field(default_factory=Counter)
    custom: set[str] = field(default_factory=set)
    chips: set[str | None] = field(default_factory=set)  # of compiled parts


def read_onnx(data: memoryview) -> Sniffed:
    """Describe an ONNX model from its bytes; raise BadModel if they are not one."""
    ir_version = model_version = 0
    words = {"producer": "", "producer_version": ""}
    opsets: dict[str, int] = {}
    graph: memoryview | None = None
    seen = _Seen()
    for f in protobuf.fields(data):
        if f.tag == 1:
            ir_version = f.number
        elif f.tag in (2, 3):
            words["producer" if f.tag == 2 else "producer_version"] = protobuf.text(_bytes(f))
        elif f.tag == 5:
            model_version = protobuf.signed(f.number)
        elif f.tag == 8:
            domain, version = _opset(_bytes(f))
            opsets[domain] = version
        elif f.tag == 7:
            if graph is not None:
                raise BadModel("the model holds two graphs")
            graph = _bytes(f)
        elif f.tag == 25:
            _walk_function(_bytes(f), seen)
    if graph is None:
        raise BadModel("it holds no ONNX graph")
    if not 1 <= ir_version <= 64 or "" not in opsets:
        raise BadModel("it names no IR version and opset, as each ONNX file does")
    inputs, outputs = _walk_graph(graph, seen, 0)
    if not outputs:
        raise BadModel("the ONNX graph has no output")
    details: dict[str, str | int] = {"ir_version": ir_version, "opset": opsets[""]}
    details |= {k: v for k, v in words.items() if v}
    if model_version:
        details["model_version"] = model_version
    details |= _found(seen)
    return Sniffed(
        format="onnx",
        runtime="onnxruntime",
        runtime_version=runtime_for(opsets, ir_version),
        inputs=inputs,
        outputs=outputs,
        needs=seen.external,
        accelerator=next(iter(seen.chips)) if len(seen.chips) == 1 else None,
        precision=main_precision(seen.weights),
        details=details,
    )


def _found(seen: _Seen) -> dict[str, str | int]:
    custom = sorted(seen.domains - _KNOWN_DOMAINS)
    words = {
        "custom_domains": ", ".join(custom),
        "custom_ops": ", ".join(sorted(seen.custom)[:_MAX_NAMES]),
        "external_data": ", ".join(list(seen.external)[:_MAX_NAMES]),
        "quantisation": _quantisation(seen.ops),
    }
    return {name: word for name, word in words.items() if word}


def _quantisation(ops: Counter[str]) -> str:
    """Say how it is quantised: by pairs of Quantize and Dequantize, by integer operators that know
    their scales (static), or by ones that find them as they run (dynamic)."""
    if ops["DynamicQuantizeLinear"] or ops["ConvInteger"] or ops["MatMulInteger"]:
        return "dynamic"
    if ops["QLinearConv"] or ops["QLinearMatMul"]:
        return "static"
    if ops["QuantizeLinear"]:
        return "static (QDQ)"
    return "weights" if ops["DequantizeLinear"] else ""


def runtime_for(opsets: Mapping[str, int], ir_version: int) -> str | None:
    """Return which ONNX Runtime opens these opsets, by domain, and this IR version; None: none that
    is known here. Domains other than the two that grow say nothing of it."""
    opset, ml = opsets[""], opsets.get(_ML, 0)
    found = [
        next((v for top, top_ir, v in _RUNTIME_FOR if opset <= top and ir_version <= top_ir), None),
        next((v for top, v in _RUNTIME_FOR_ML if ml <= top), None),
    ]
    known = [version for version in found if version is not None]
    newest = max(known, key=lambda version: [int(n) for n in version.split(".")])
    return f">={newest}" if len(known) == len(found) else None


def _bytes(f: protobuf.Field) -> memoryview:
    if f.wire != protobuf.LEN:
        raise BadModel(f"field {f.tag} should hold bytes and holds a number")
    return f.data


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for f in protobuf.fields(data):
        if f.tag == 1:
            domain = protobuf.text(_bytes(f))
        elif f.tag == 2:
            version = protobuf.signed(f.number)
    return ("" if domain == "ai.onnx" else domain), version


def _walk_graph(
    data: memoryview, seen: _Seen, depth: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Gather from a graph; only of the outermost one are the inputs and outputs of interest."""
    if depth > _MAX_DEPTH:
        raise BadModel(f"its graphs are nested more than {_MAX_DEPTH} deep")
    inputs: list[memoryview] = []
    outputs: list[memoryview] = []
    constants: set[str] = set()
    for f in protobuf.fields(data):
        if f.tag == 1:
            _walk_node(_bytes(f), seen, depth)
        elif f.tag == 5:
            constants.add(_walk_tensor(_bytes(f), seen))
        elif f.tag == 15:
            constants.add(_walk_sparse(_bytes(f), seen))
        elif f.tag == 11:
            inputs.append(_bytes(f))
        elif f.tag == 12:
            outputs.append(_bytes(f))
    if depth:
        return (), ()
    if len(inputs) - len(constants) > _MAX_PORTS or len(outputs) > _MAX_PORTS:
        raise BadModel(f"it has more than {_MAX_PORTS} inputs or outputs")
    # Before IR version 4 each weight was listed as an input too.
    ports = [_port(view) for view in inputs if _name(view) not in constants]
    return tuple(ports), tuple(_port(view) for view in outputs)


def _walk_node(data: memoryview, seen: _Seen, depth: int) -> None:
    domain = op = ""
    for f in protobuf.fields(data):
        if f.tag == 5:
            _walk_attribute(_bytes(f), seen, depth)
        elif f.tag == 7:
            domain = protobuf.text(_bytes(f))
        elif f.tag == 4:
            op = protobuf.text(_bytes(f))
    if (domain, op) == _COMPILED:
        _note_compiled(data, seen)
    seen.domains.add(domain)
    seen.ops[op] += 1
    if domain not in _KNOWN_DOMAINS and len(seen.custom) < _MAX_NAMES:
        seen.custom.add(f"{domain}::{op}")


def _note_compiled(node: memoryview, seen: _Seen) -> None:
    """Note which chip a compiled part is for, and the file where it lies if not in the node."""
    numbers: dict[str, int] = {}
    texts: dict[str, memoryview] = {}
    for attribute in protobuf.fields(node):
        if attribute.tag == 5:
            name = _name(_bytes(attribute))
            for f in protobuf.fields(attribute.data):
                if f.tag == 3:
                    numbers[name] = f.number
                elif f.tag == 4:
                    texts[name] = _bytes(f)
    source = protobuf.text(texts.get("source", node[:0]), 256)
    seen.chips.add(_COMPILERS.get(source.lower().removesuffix("executionprovider")))
    if numbers.get("embed_mode", _EMBEDDED) != _EMBEDDED and "ep_cache_context" in texts:
        file = _inside(protobuf.text(texts["ep_cache_context"]))
        seen.external.setdefault(file, 1)


def _walk_attribute(data: memoryview, seen: _Seen, depth: int) -> None:
    for f in protobuf.fields(data):
        if f.tag in (5, 10):
            _walk_tensor(_bytes(f), seen)
        elif f.tag in (6, 11):
            _walk_graph(_bytes(f), seen, depth + 1)
        elif f.tag in (22, 23):
            _walk_sparse(_bytes(f), seen)


def _walk_function(data: memoryview, seen: _Seen) -> None:
    for f in protobuf.fields(data):
        if f.tag == 7:
            _walk_node(_bytes(f), seen, 1)
        elif f.tag == 11:
            _walk_attribute(_bytes(f), seen, 1)


def _walk_sparse(data: memoryview, seen: _Seen) -> str:
    name = ""
    for f in protobuf.fields(data):
        if f.tag == 1:
            name = _walk_tensor(_bytes(f), seen)
        elif f.tag == 2:
            _walk_tensor(_bytes(f), seen)
    return name


def _walk_tensor(data: memoryview, seen: _Seen) -> str:
    """Note a weight's type, size and outside file, and return its name."""
    name, dtype, elements = "", 0, 1
    outside: dict[str, str] = {}
    for f in protobuf.fields(data):
        if f.tag == 1:
            for size in protobuf.varints(f.data) if f.wire == protobuf.LEN else (f.number,):
                elements = min(elements * size, 1 << 62)
        elif f.tag == 2:
            dtype = f.number
        elif f.tag == 8:
            name = protobuf.text(_bytes(f))
        elif f.tag == 13:
            key, value = _entry(_bytes(f))
            outside[key] = _inside(value) if key == "location" else value
    if "location" in outside:
        _note_outside(outside, seen)
    seen.weights[DTYPES.get(dtype, "?")] += elements
    return name


def _inside(location: str) -> str:
    if location.startswith(("/", "\\")) or ".." in location.replace("\\", "/").split("/"):
        raise BadModel(f"its external data {location[:80]!a} lies outside its folder")
    return location


def _note_outside(outside: dict[str, str], seen: _Seen) -> None:
    """Note up to where a tensor reads its outside file; without a length, one byte at least."""
    begin, length = (outside.get(key, "") for key in ("offset", "length"))
    end = sum(int(n) for n in (begin, length) if _COUNT.fullmatch(n)) if length else 0
    file = outside["location"]
    seen.external[file] = max(seen.external.get(file, 1), end)


def _entry(data: memoryview) -> tuple[str, str]:
    key = value = ""
    for f in protobuf.fields(data):
        if f.tag == 1:
            key = protobuf.text(_bytes(f))
        elif f.tag == 2:
            value = protobuf.text(_bytes(f))
    return key, value


def _name(data: memoryview) -> str:
    return next((protobuf.text(_bytes(f)) for f in protobuf.fields(data) if f.tag == 1), "")


def _port(data: memoryview) -> Tensor:
    name, kind = _name(data), None
    for f in protobuf.fields(data):
        if f.tag == 2:
            if kind is not None:
                raise BadModel(f"{name!r} has two types")
            kind = _bytes(f)
    if not name:
        raise BadModel("an input or output has no name")
    if kind is None:
        raise BadModel(f"{name!r} has no type")
    return _tensor(name, kind)


def _tensor(name: str, kind: memoryview) -> Tensor:
    entries = [f for f in protobuf.fields(kind) if f.tag != 6]
    if len(entries) != 1 or entries[0].tag != 1:
        raise BadModel(
            f"{name!r} is not a tensor but a sequence or map, which a device cannot check;"
            " export it as plain tensors (skl2onnx: zipmap=False)"
        )
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    for f in protobuf.fields(_bytes(entries[0])):
        if f.tag == 1:
            dtype = DTYPES.get(f.number)
        elif f.tag == 2:
            shape = tuple(_size(_bytes(d)) for d in protobuf.fields(_bytes(f)) if d.tag == 1)
    if dtype is None:
        raise BadModel(f"{name!r} has an element type that ONNX does not define")
    if shape is not None and len(shape) > 64:
        raise BadModel(f"{name!r} has {len(shape)} dimensions")
    return Tensor(name, dtype, shape)


def _size(data: memoryview) -> int:
    size = DYNAMIC
    for f in protobuf.fields(data):
        if f.tag == 1:
            size = protobuf.signed(f.number)
        elif f.tag == 2:
            size = DYNAMIC
    return size if size >= 0 else DYNAMIC
