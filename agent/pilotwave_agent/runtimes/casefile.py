"""Golden cases as files: `selftest.safetensors`, and beside it or alone `selftest.json`, for
strings.

Read here and not by the package of that name, as the interpreter of an old runtime has none.
bfloat16, which numpy has not, becomes float32, which holds each of its values exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave_agent.runtimes.base import Array
from pilotwave_protocol.safetensors import Stored, write_safetensors
from pilotwave_protocol.tensortypes import (
    BFLOAT16,
    BY_SAFETENSORS,
    CASES_FORMAT,
    NAMES,
    STRING,
)

_MAX_HEADER = 1 << 20


class BadCases(ValueError):
    """The file holds no golden cases."""


def read_tensors(path: Path) -> dict[str, Array]:
    """Read all tensors of the cases by name. Raises `BadCases`, `OSError`."""
    if path.suffix == ".json":
        found = _read_json(path)
        if found is None:
            raise BadCases(f"expected golden cases with format {CASES_FORMAT}")
        return found
    found = _read_safetensors(path)
    twin = path.with_suffix(".json")
    more = _read_json(twin) if twin.is_file() else None
    if both := found.keys() & (more or {}).keys():
        raise BadCases(f"{min(both)} is in both {path.name} and {twin.name}")
    return {**found, **(more or {})}


def read_about(path: Path) -> Mapping[str, str]:
    """Return what a safetensors file tells of the whole. Raises `BadCases`, `OSError`."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        raw = file.read(min(size, _MAX_HEADER))
    try:
        about = json.loads(raw).get("__metadata__") or {}
        if not all(isinstance(text, str) for text in dict(about).values()):
            raise BadCases("expected texts in __metadata__")
        return dict(about)
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise BadCases(f"expected safetensors: {e}") from e


def _read_safetensors(path: Path) -> dict[str, Array]:
    """Read eight bytes of size, a JSON header, then the numbers.

    https://huggingface.co/docs/safetensors/index#format
    """
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    try:
        header = json.loads(raw[8:start])
        header.pop("__metadata__", None)
        return {name: _tensor(raw, start, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise BadCases(f"expected golden cases as safetensors: {e}") from e


def _tensor(raw: bytes, start: int, entry: Mapping[str, Any]) -> Array:
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(raw) - start:
        raise ValueError("a tensor lies outside the file")
    name = BY_SAFETENSORS[entry["dtype"]]
    stored = np.dtype(np.uint16 if name == BFLOAT16 else name).newbyteorder("<")
    flat: Array = np.frombuffer(raw[start + first : start + last], stored)
    if name == BFLOAT16:
        flat = widened(flat)
    # reshaped copies: what a runtime is given has to be its own to write to
    return flat.reshape(entry["shape"]).astype(flat.dtype.newbyteorder("="))


def as_safetensors(
    tensors: Mapping[str, Array],
    kinds: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> bytes:
    """Write arrays as safetensors; those that `kinds` calls bfloat16 are narrowed. `about` is told
    of the whole.

    Raises `KeyError` for arrays of other types, as texts are.
    """
    stored: list[Stored] = []
    for name, array in tensors.items():
        narrow = (kinds or {}).get(name) == BFLOAT16
        given = narrowed(array) if narrow else array
        raw = np.ascontiguousarray(given).astype(given.dtype.newbyteorder("<")).tobytes()
        stored.append(Stored(name, BFLOAT16 if narrow else str(array.dtype), array.shape, raw))
    return write_safetensors(stored, about)


def widened(halves: Array) -> Array:
    """Return bfloat16 numbers, given as their 16 bits, as float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def narrowed(floats: Array) -> Array:
    """Return the 16 bits of each float32 as bfloat16, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(floats, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(floats), 0x7FC0, rounded).astype(np.uint16)


def _read_json(path: Path) -> dict[str, Array] | None:
    """Return the tensors of `{"format": …, "tensors": {name: {dtype, shape, data}}}`; None for a
    file of another kind, which may be there by any name."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.get("format") != CASES_FORMAT:
            return None
        return {str(name): _listed(entry) for name, entry in found["tensors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        raise BadCases(f"expected golden cases as JSON: {e}") from e


def _listed(entry: Mapping[str, Any]) -> Array:
    dtype, shape = entry["dtype"], entry["shape"]
    if dtype not in NAMES:
        raise ValueError(f"no golden cases have the type {dtype}")
    flat = _flat(entry["data"])
    if dtype == STRING:
        if not all(isinstance(word, str) for word in flat):
            raise ValueError("a value of a string tensor is no text")
        array: Array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    # "NaN" and "Infinity" are texts there, which float() reads
    numbers = [float(n) if isinstance(n, str) else n for n in flat]
    made: Array = np.array(numbers, np.float32 if dtype == BFLOAT16 else dtype).reshape(shape)
    return widened(narrowed(made)) if dtype == BFLOAT16 else made


def _flat(data: object) -> list[Any]:
    if isinstance(data, list):
        return [value for item in data for value in (_flat(item))]
    return [data]
