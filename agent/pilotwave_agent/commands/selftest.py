"""For publishers: `pilotwave-agent selftest` tries a variant's files as a device would,
`pilotwave-agent golden` writes down what they answer to given inputs.

The manifest comes on stdin; one JSON object says how it went: `figures` in words, or `reason` and
`sentence`. No data folder is needed, and nothing is kept.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pilotwave_agent.facts import agent_version, arch
from pilotwave_agent.hardware import board
from pilotwave_agent.selftest import TestLimits, record_answers, run_selftest
from pilotwave_protocol.errors import PilotwaveError, RefusedError
from pilotwave_protocol.manifest import TensorSpec, parse_manifest
from pilotwave_protocol.tensortypes import STRING


class NoSuchVariant(PilotwaveError):
    """The manifest does not have it."""


def try_files(raw: bytes, name: str, folder: Path, timeout_s: float) -> str:
    """Return the JSON text of how a variant's self-test went. Raises `PilotwaveError`, `OSError`"""
    variant = parse_manifest(raw).variant(name)
    if variant is None:
        raise NoSuchVariant(f"the manifest on stdin has no variant {ascii(name)[:60]}")
    limits = TestLimits(timeout_s=timeout_s, memory_mb=0)
    try:
        figures = run_selftest(folder.absolute(), variant, limits)
    except RefusedError as no:
        return json.dumps({"ok": False, "reason": str(no.reason), "sentence": str(no)})
    said = {"tried": figures.tried, "figures": str(figures), "measured": asdict(figures)}
    return json.dumps({"ok": True, **said, "machine": _machine()})


def _machine() -> dict[str, Any]:
    """What the figures are of, in the words of facts."""
    root = Path("/")
    flags = sorted(board.cpu_flags(root))
    return {"arch": arch(), "cpu": board.cpu_model(root) or "", "flags": flags}


def try_itself() -> str:
    """Import what the agent needs to run, and return its version as the JSON text that a program
    under test ends with (`runtimes.command`): whoever replaces itself by this agent asks for it."""
    for module in ("resident.run", "work", "commands.once", "commands.status", "commands.rollback"):
        importlib.import_module(f"pilotwave_agent.{module}")
    return json.dumps({"version": agent_version()})


class BadInputs(PilotwaveError):
    """The file holds no inputs that a model could be given."""


def write_golden(
    raw: bytes, name: str, folder: Path, inputs: Path, out: Path, *, most: int, timeout_s: float
) -> str:
    """Write golden cases into `out`; return the JSON text of how it went.

    Raises `PilotwaveError`, `OSError`.
    """
    from pilotwave_agent.runtimes.record import write_cases

    variant = parse_manifest(raw).variant(name)
    if variant is None:
        raise NoSuchVariant(f"the manifest on stdin has no variant {ascii(name)[:60]}")
    given = _read_inputs(inputs, [t.name for t in variant.inputs], most)
    if not variant.inputs:
        told = tuple(TensorSpec(n, _kind(a), (-1, *a.shape[1:])) for n, a in given.items())
        variant = replace(variant, inputs=told)
    limits = TestLimits(timeout_s=timeout_s, memory_mb=0)
    with tempfile.TemporaryDirectory(prefix="pw-inputs-") as scratch:
        write_cases(Path(scratch), given, {})
        found = next(Path(scratch).iterdir())
        try:
            said = record_answers(folder.absolute(), variant, found, out, limits)
        except RefusedError as no:
            return json.dumps({"ok": False, "reason": str(no.reason), "sentence": str(no)})
    return json.dumps({"ok": True, **said})


def _read_inputs(path: Path, names: list[str], most: int) -> dict[str, Any]:
    """Read `.npz`, `.npy` or `.safetensors`, at most so many cases of each. Raises `BadInputs`."""
    import numpy as np

    from pilotwave_agent.runtimes.casefile import BadCases, read_tensors

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found = {key: file[key] for key in file.files}
        elif path.suffix == ".npy":
            if len(names) > 1:
                raise BadInputs(f"{path}: the model takes {', '.join(names)}; save a .npz of them")
            found = {names[0] if names else "input": np.load(path, allow_pickle=False)}
        else:
            found = read_tensors(path)
    except (BadCases, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise BadInputs(f"{path}: expected .npz, .npy or .safetensors: {e}") from e
    inputs = {key.removeprefix("input."): a for key, a in found.items() if "output." not in key}
    texts = {key: a.astype(object) for key, a in inputs.items() if a.dtype.kind in "US"}
    whole = {**inputs, **texts}
    if len({a.dtype == object for a in whole.values()}) > 1:
        raise BadInputs(f"{path}: texts and numbers cannot be mixed yet; write the cases by hand")
    return {key: a[:most] if a.ndim else a for key, a in whole.items()}


def _kind(array: Any) -> str:
    return STRING if array.dtype == object else str(array.dtype)
