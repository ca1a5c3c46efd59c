"""The element types of golden cases: one table for the desk that checks them and the device that
runs them.

Strings have no place in safetensors; a JSON file beside it holds them (`CASES_FORMAT`).
"""

from __future__ import annotations

from types import MappingProxyType

CASES = "selftest.safetensors"
CASES_JSON = "selftest.json"
CASES_FORMAT = "pilotwave-cases/1"
STRING = "string"
BFLOAT16 = "bfloat16"

BY_SAFETENSORS = MappingProxyType(
    {
        "F64": "float64", "F32": "float32", "F16": "float16", "BF16": BFLOAT16, "BOOL": "bool",
        "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
        "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    }
)  # fmt: skip
"""What safetensors call a type -> what manifests and runtimes do."""

NAMES = frozenset({*BY_SAFETENSORS.values(), STRING})
"""Every type that a golden case may have."""
NUMBERS = "update.bin"
"""The numbers of an update of a training plan, as the child that makes them writes them."""
