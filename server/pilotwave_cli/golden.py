"""Look into `selftest.safetensors` before it is signed: would the devices understand it?

Only the header is read: which tensors there are, of what type and shape. Whether the outputs are
right is for the devices to find out; cases that fit no model would only fail on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_cli.errors import CliError
from pilotwave_protocol import sniff, strictjson
from pilotwave_protocol.errors import BadJson

MAX_HEADER = 1 << 20
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip


@dataclass(frozen=True)
class _Case:
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Schema:
    """Inputs and outputs by name, in the order in which the model takes and gives them."""

    inputs: tuple[sniff.Tensor, ...] = ()
    outputs: tuple[sniff.Tensor, ...] = ()


def schema_of(path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Schema:
    """Return what the cases tell of a model whose file does not name its inputs and outputs.

    Several of them need their order said (`--inputs a,b`): the file takes them by position.
    """
    cases = _read(path)
    return Schema(
        _ordered(path, "input", _part(cases, "input."), inputs),
        _ordered(path, "output", _part(cases, "output."), outputs),
    )


def _ordered(
    path: Path, kind: str, cases: dict[str, _Case], order: tuple[str, ...]
) -> tuple[sniff.Tensor, ...]:
    if len(cases) > 1 and not order:
        names = ",".join(cases)
        raise CliError(f"{path}: the model takes its {kind}s by position; say --{kind}s {names}")
    if order and set(order) != cases.keys():
        raise CliError(f"--{kind}s: {path} has {', '.join(cases)}; got {', '.join(order)}")
    named = [(name, cases[name]) for name in order or cases]
    return tuple(
        sniff.Tensor(name, case.dtype, (sniff.DYNAMIC, *case.shape[1:])) for name, case in named
    )


def check_cases(path: Path, found: sniff.Sniffed) -> None:
    """Raise `CliError` unless the cases have the model's inputs and some of its outputs."""
    cases = _read(path)
    inputs, outputs = _part(cases, "input."), _part(cases, "output.")
    if not inputs or not outputs or len(inputs) + len(outputs) != len(cases):
        raise CliError(f"{path}: expected tensors input.<name> and output.<name> only")
    counts = {case.shape[0] if case.shape else 0 for case in cases.values()}
    if len(counts) != 1 or 0 in counts:
        raise CliError(f"{path}: expected the same number of cases, at least 1, in each tensor")
    if not all(t.name for t in (*found.inputs, *found.outputs)):
        return  # they count by position: `schema_of`
    if found.inputs:
        missing = {t.name for t in found.inputs} ^ inputs.keys()
        if missing:
            raise CliError(f"{path}: cases and model disagree on the input {min(missing)}")
    _match(path, "input", inputs, found.inputs)
    _match(path, "output", outputs, found.outputs)


def _part(cases: dict[str, _Case], prefix: str) -> dict[str, _Case]:
    return {n.removeprefix(prefix): case for n, case in cases.items() if n.startswith(prefix)}


def _match(path: Path, kind: str, cases: dict[str, _Case], tensors: tuple[Any, ...]) -> None:
    known = {t.name: t for t in tensors}
    for name, case in cases.items():
        if not known:
            continue
        tensor = known.get(name)
        if tensor is None:
            raise CliError(f"{path}: the model has no {kind} {name}")
        shape = tensor.shape
        fits = shape is None or _fits(case.shape, shape)
        if case.dtype != tensor.dtype or not fits:
            raise CliError(
                f"{path}: {kind} {name} is {case.dtype} {list(case.shape)}; "
                f"the model has {tensor.dtype} {list(shape or ())}"
            )


def _fits(case: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """The cases' axis is the model's first, or stands before all of the model's."""
    rest = shape[1:] if len(shape) == len(case) else shape
    sizes = zip(case[1:], rest, strict=True) if len(case) - 1 == len(rest) else None
    return sizes is not None and all(-1 in (a, b) or a == b for a, b in sizes)


def _read(path: Path) -> dict[str, _Case]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= MAX_HEADER:
                raise ValueError("its header has an impossible size")
            raw = file.read(size)
        header = strictjson.loads(raw, max_bytes=MAX_HEADER)
        return {
            str(name): _Case(_DTYPES.get(entry["dtype"], "?"), tuple(map(int, entry["shape"])))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (BadJson, ValueError, KeyError, TypeError, AttributeError) as e:
        raise CliError(f"{path}: expected golden cases as safetensors: {e}") from e
