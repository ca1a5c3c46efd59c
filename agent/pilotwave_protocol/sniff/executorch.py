"""Read an ExecuTorch program (`.pte`): methods, inputs and outputs, the backends that it needs.

Slots are those of schema/program.fbs. The file names neither inputs nor outputs: they count by
position. Its extended header tells how long it must be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pilotwave_protocol.sniff import flatbuffer
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import DYNAMIC, Sniffed, Tensor

# torch's numbers for element types
_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
    7: "float64", 11: "bool", 15: "bfloat16",
}  # fmt: skip
_VERSION, _PLANS = 0, 1
_NAME, _VALUES, _INPUTS, _OUTPUTS, _OPERATORS, _DELEGATES, _BUFFERS = 0, 2, 3, 4, 6, 7, 8
_VALUE_KIND, _VALUE = 0, 1
_TENSOR = 5
_TENSOR_DTYPE, _TENSOR_SIZES, _TENSOR_SHAPE_KIND = 0, 2, 7
_STATIC = 0
_MAX_NAMES = 64


def read_executorch(data: memoryview) -> Sniffed:
    """Describe a program from its bytes; raise BadModel if they are not one."""
    _check_length(data)
    program = flatbuffer.root(data)
    plans = list(program.tables(_PLANS))
    if not plans:
        raise BadModel("the ExecuTorch program holds no method")
    names = [plan.text(_NAME) for plan in plans[:_MAX_NAMES]]
    plan = plans[names.index("forward")] if "forward" in names else plans[0]
    values = list(plan.tables(_VALUES))
    backends = sorted({d.text(0) for d in plan.tables(_DELEGATES)})
    operators = sorted({op.text(0) for op in plan.tables(_OPERATORS)})
    planned = plan.ints(_BUFFERS, "q") or ()
    words: dict[str, str | int] = {
        "schema": program.number(_VERSION, "I"),
        "methods": ", ".join(names),
        "backends": ", ".join(backends[:_MAX_NAMES]),
        "operators": ", ".join(operators[:_MAX_NAMES]),
        "planned_bytes": sum(n for n in planned if 0 < n < 1 << 40),
    }
    return Sniffed(
        format="executorch",
        runtime="executorch",
        inputs=tuple(_ports(plan.ints(_INPUTS), values)),
        outputs=tuple(_ports(plan.ints(_OUTPUTS), values)),
        details={name: word for name, word in words.items() if word},
    )


def _check_length(data: memoryview) -> None:
    if bytes(data[8:12]) == b"eh00" and len(data) >= 32:
        program, segments = struct.unpack_from("<QQ", data, 16)
        if len(data) < max(program, segments):
            raise BadModel(f"the file is cut off: {len(data)} bytes of {max(program, segments)}")


def _ports(indexes: tuple[int, ...] | None, values: list[flatbuffer.Table]) -> Iterator[Tensor]:
    for i in indexes or ():
        if not 0 <= i < len(values):
            raise BadModel("an input or output points at no value")
        tensor = values[i].table(_VALUE)
        if values[i].number(_VALUE_KIND, "B") != _TENSOR or tensor is None:
            raise BadModel("an input or output is no tensor, which a device cannot check")
        dtype = _DTYPES.get(tensor.number(_TENSOR_DTYPE, "b"))
        sizes = tensor.ints(_TENSOR_SIZES, limit=flatbuffer.MAX_RANK) or ()
        if dtype is None:
            raise BadModel("an input or output has a type or shape that a device cannot check")
        fixed = tensor.number(_TENSOR_SHAPE_KIND, "b") == _STATIC
        yield Tensor("", dtype, tuple(n if fixed and n >= 0 else DYNAMIC for n in sizes))
