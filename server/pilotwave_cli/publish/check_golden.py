"""Look into golden cases before they are signed: would the devices understand them?

Only the header is read: which tensors there are, of what type and shape. Whether the outputs are
right is for the devices to find out; cases that fit no model would only fail on all of them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_cli.errors import CliError
from pilotwave_protocol import sniff, strictjson
from pilotwave_protocol.errors import BadJson
from pilotwave_protocol.tensortypes import BY_SAFETENSORS, CASES_FORMAT, NAMES

MAX_HEADER = 1 << 20


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


def is_cases(path: Path) -> bool:
    """Say whether a JSON file means to hold golden cases."""
    return _read_json(path) is not None


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
    """Return the tensors of the cases and of their JSON twin, where there is one."""
    if path.suffix == ".json":
        found = _read_json(path)
        if found is None:
            raise CliError(f'{path}: expected golden cases with "format": "{CASES_FORMAT}"')
        return found
    found = _read_safetensors(path)
    twin = path.with_suffix(".json")
    more = (_read_json(twin) if twin.is_file() else None) or {}
    if both := found.keys() & more.keys():
        raise CliError(f"{twin}: {min(both)} is in {path.name} too; expected it in one")
    return found | more


def _read_safetensors(path: Path) -> dict[str, _Case]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= MAX_HEADER:
                raise ValueError("its header has an impossible size")
            raw = file.read(size)
        header = strictjson.loads(raw, max_bytes=MAX_HEADER)
        return {
            str(name): _Case(_known(path, name, entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (BadJson, ValueError, KeyError, TypeError, AttributeError) as e:
        raise CliError(f"{path}: expected golden cases as safetensors: {e}") from e


def _known(path: Path, name: str, word: object) -> str:
    known = BY_SAFETENSORS.get(str(word))
    if known is None:
        words = ", ".join(BY_SAFETENSORS)
        raise CliError(f"{path}: {name} has the type {word}, which devices cannot read; {words}")
    return known


def _read_json(path: Path) -> dict[str, _Case] | None:
    """Return the tensors; None for a JSON file that says nothing of golden cases."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.get("format") != CASES_FORMAT:
            return None
        return {name: _listed(entry) for name, entry in found["tensors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise CliError(f"{path}: expected golden cases as JSON: {e}") from e


def _listed(entry: dict[str, Any]) -> _Case:
    dtype, shape = entry["dtype"], tuple(map(int, entry["shape"]))
    if dtype not in NAMES:
        raise ValueError(f"no golden cases have the type {dtype}")
    if (given := _count(entry["data"])) != math.prod(shape):
        raise ValueError(f"the shape {list(shape)} has {math.prod(shape)} values; got {given}")
    return _Case(dtype, shape)


def _count(data: object) -> int:
    return sum(map(_count, data)) if isinstance(data, list) else 1
