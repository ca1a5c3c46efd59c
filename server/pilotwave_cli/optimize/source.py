"""Look at the model that was given, before anything is made of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pilotwave_cli.errors import CliError
from pilotwave_protocol import sniff
from pilotwave_protocol.digest import hash_file
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_protocol.tensortypes import STRING

_MOST = (1 << 31) - (1 << 20)  # what a protobuf message can hold, with room for what tools add


@dataclass(frozen=True)
class Original:
    """The source file, the digest of it and what it reads beside it, its inputs; `model` is the
    same as ONNX."""

    path: Path
    model: Path
    sha256: str
    size: int
    inputs: tuple[TensorSpec, ...]

    @property
    def is_export(self) -> bool:
        """Say whether it is a PyTorch export."""
        return self.model != self.path


def read_source(path: Path, to_onnx: Callable[[Path], Path]) -> Original:
    """Describe the source, or raise `CliError`. `to_onnx` makes an ONNX model of an export."""
    found = _sniffed(path)
    if found.format == "torch-export":
        made = read_source(to_onnx(path), to_onnx)
        return replace(made, path=path, sha256=_digest([path]), size=path.stat().st_size)
    if found.format != "onnx":
        raise CliError(
            f"{path}: expected an ONNX model, or what torch.export.save wrote; "
            f"its content is {found.format}"
        )
    if found.precision not in ("fp32", "", None):
        raise CliError(
            f"{path}: expected fp32 weights; it has {found.precision}: give the model as trained"
        )
    files = [path, *(path.parent / name for name in found.needs)]
    for beside in files[1:]:
        if not beside.is_file():
            raise CliError(f"{path}: reads its weights from {beside.name}, which is not there")
    size = sum(file.stat().st_size for file in files)
    if size > _MOST:
        raise CliError(
            f"{path}: is {size / 1e9:.1f} GB with its weights; 2.1 GB at most can be optimized "
            "here: quantise it with tools for large models, and publish the result"
        )
    return Original(path, path, _digest(files), size, _inputs(path, found))


def _sniffed(path: Path) -> sniff.Sniffed:
    if not path.is_file():
        raise CliError(f"{path}: no such file")
    try:
        return sniff.sniff_file(path)
    except sniff.BadModel as e:
        raise CliError(str(e)) from e


def _digest(files: list[Path]) -> str:
    """The file's own digest; with weights beside it, one of all their digests in order."""
    digests = [hash_file(file)[0] for file in files]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _inputs(path: Path, found: sniff.Sniffed) -> tuple[TensorSpec, ...]:
    if not found.inputs:
        raise CliError(f"{path}: the model takes no input")
    specs = []
    for tensor in found.inputs:
        if tensor.shape is None:
            raise CliError(f"{path}: input {tensor.name} has no shape; export it with one")
        if tensor.dtype == STRING:
            raise CliError(f"{path}: input {tensor.name} takes texts, which cannot be judged here")
        specs.append(TensorSpec(tensor.name, tensor.dtype, tensor.shape))
    return tuple(specs)


def copied(path: Path, folder: Path) -> Path:
    """Copy a publisher's own variant, a file or a folder, into a folder. Raises `CliError`."""
    if path.is_dir():
        shutil.copytree(path, folder)
    elif path.is_file():
        folder.mkdir()
        shutil.copy(path, folder)
    else:
        raise CliError(f"{path}: no such file or folder")
    return folder
