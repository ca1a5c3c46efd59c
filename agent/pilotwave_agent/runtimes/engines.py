"""TensorRT engines that were built on this device, and what they are bound to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from pilotwave_agent.runtimes import faults, nvidia, trtexec
from pilotwave_agent.runtimes.base import CannotLoad, Options
from pilotwave_agent.runtimes.trtexec import Binding
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

FOLDER = "engines"
_MAGIC = b"ftrt"
_CHUNK = 1 << 20


def binding_here(precision: str) -> Binding:
    """Return what an engine built on this device would be bound to."""
    return Binding(nvidia.tensorrt_version() or "0", nvidia.gpu() or "any", precision)


def is_engine(file: Path) -> bool:
    """Say whether a file is an engine already, by its content."""
    with file.open("rb") as stream:
        head = stream.read(1 << 16)
    return head.startswith(_MAGIC) or (head[4:5] == b"{" and _MAGIC in head)


def engine_for(file: Path, options: Options) -> tuple[Path, Binding]:
    """Return the engine that `file` is, or that was built from it; `CannotLoad` if none was."""
    binding = binding_here(options.precision)
    if is_engine(file):
        return file, binding
    built = options.cache / binding.name(_sha256(file)) if options.cache else None
    if built is None or not built.is_file():
        raise CannotLoad(f"no engine was built from {file.name} for {binding} yet")
    return built, binding


def build_missing(file: Path, options: Options, *, timeout_s: float) -> bool:
    """Build the engine of an ONNX file unless there is one; say whether it was built now.

    Raises `RefusedError`: runtime_missing without the tools, else what kept it from being built.
    """
    if is_engine(file) or options.cache is None:
        return False
    binding = binding_here(options.precision)
    engine = options.cache / binding.name(_sha256(file))
    if engine.is_file():
        return False
    if nvidia.trtexec() is None:
        sentence = f"{file.name} has to be built into an engine first, and trtexec is not here"
        raise RefusedError(Reason.RUNTIME_MISSING, sentence)
    engine.parent.mkdir(parents=True, exist_ok=True)
    try:
        trtexec.build(file, engine, binding, options.inputs, timeout_s=timeout_s)
    except TimeoutError as e:
        raise RefusedError(Reason.SELFTEST_TIMEOUT, f"building the engine: {e}") from e
    except CannotLoad as e:
        raise RefusedError(faults.reason_of(e, "load"), f"building the engine: {e}") from e
    return True


def clear(folder: Path, keep: Collection[str]) -> None:
    """Remove the engines of ONNX files whose digests are not among `keep`."""
    for path in folder.glob("*.engine") if folder.is_dir() else ():
        if path.name.split("-", 1)[0] not in keep:
            path.unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
