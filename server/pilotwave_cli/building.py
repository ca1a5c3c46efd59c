"""Make a version manifest from folders: hash the files, sniff the format, read the io schema."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pilotwave_cli.errors import CliError
from pilotwave_protocol import digest, names, sniff
from pilotwave_protocol.errors import BadName
from pilotwave_protocol.manifest import FileEntry, Requires, SelfTest, TensorSpec, Variant

CASES = "selftest.safetensors"


@dataclass(frozen=True)
class Wishes:
    """What the publisher says of every variant; the rest is read from the files."""

    atol: str = "1e-3"
    rtol: str = "1e-3"
    max_latency_ms: int | None = None
    requires: Requires = field(default_factory=Requires)
    runtime: str | None = None
    runtime_version: str = ""
    entrypoint: str | None = None
    unsafe_format: bool = False


@dataclass(frozen=True)
class Built:
    """A variant, and where each of its blobs lies on this machine."""

    variant: Variant
    sources: Mapping[str, Path]


def build_variant(name: str, source: Path, wishes: Wishes) -> Built:
    """Describe a file or folder as a variant, or raise `CliError` saying what is wrong with it."""
    names.check_variant(name)
    files = _files(source)
    entries, sources = [], {}
    for path, real in files.items():
        sha256, size = digest.hash_file(real)
        entries.append(FileEntry(path, size, sha256))
        sources[sha256] = real
    looked = {path: sniff.sniff_file(real) for path, real in files.items() if real.stat().st_size}
    entrypoint, found = _entrypoint(looked, files, wishes)
    for needed in found.needs:
        if needed not in files:
            raise CliError(f"{source}: {entrypoint} needs {needed}, which is not there")
    danger = _danger(looked, entrypoint)
    if danger and not wishes.unsafe_format:
        raise CliError(
            f"{source}: {danger}; "
            "publish it with --unsafe-format if the devices are allowed to take that"
        )
    runtime = wishes.runtime or found.runtime
    if runtime is None:
        raise CliError(f"{source}: no runtime is known for {found.format}; say --runtime")
    variant = Variant(
        name=name,
        runtime=runtime,
        runtime_version=wishes.runtime_version or found.runtime_version or "",
        precision=found.precision or "",
        format=found.format,
        requires=wishes.requires,
        entrypoint=entrypoint,
        files=tuple(entries),
        inputs=_specs(found.inputs),
        outputs=_specs(found.outputs),
        selftest=_selftest(files, wishes),
        unsafe_format=danger is not None,
    )
    return Built(variant, sources)


def _selftest(files: Mapping[str, Path], wishes: Wishes) -> SelfTest | None:
    if CASES not in files:
        return None
    return SelfTest(CASES, wishes.atol, wishes.rtol, wishes.max_latency_ms)


def _specs(tensors: tuple[sniff.Tensor, ...]) -> tuple[TensorSpec, ...]:
    # a rank that the file does not tell leaves nothing to hold a device to
    return tuple(TensorSpec(t.name, t.dtype, t.shape) for t in tensors if t.shape is not None)


def _files(source: Path) -> dict[str, Path]:
    """Return path inside the variant -> file; links, hidden and special files are refused."""
    if source.is_symlink() or not source.exists():
        raise CliError(f"{source}: no such file or folder (links are not followed)")
    if source.is_file():
        return {_checked(source.name, source): source}
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(source):
        for name in sorted([*folders, *files]):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise CliError(f"{path}: is a link or a special file; only plain files are shipped")
            inside = _checked(path.relative_to(source).as_posix(), path)
            if stat.S_ISREG(mode):
                found[inside] = path
    if not found:
        raise CliError(f"{source}: expected model files; the folder is empty")
    return dict(sorted(found.items()))


def _checked(inside: str, path: Path) -> str:
    try:
        return names.check_file_path(inside)
    except BadName as e:
        raise CliError(f"{path}: cannot be shipped under this name: {e}") from e


Looked = Mapping[str, sniff.Sniffed]


def _danger(looked: Looked, entrypoint: str) -> str | None:
    """Say which file can run code when it is loaded. A companion of unknown kind is only data."""
    for path, found in looked.items():
        if found.unsafe and (path == entrypoint or found.format != "unknown"):
            return f"{path} is not safe to load: {found.unsafe}"
    return None


def _entrypoint(
    looked: Looked, files: Mapping[str, Path], wishes: Wishes
) -> tuple[str, sniff.Sniffed]:
    """Return the file that a runtime opens, and what it is."""
    chosen = wishes.entrypoint
    if chosen is not None:
        if chosen not in looked:
            raise CliError(f"--entrypoint {chosen}: is not among the files, or is empty")
        return chosen, looked[chosen]
    loadable = {p: s for p, s in looked.items() if s.runtime is not None and p != CASES}
    if len(loadable) == 1:
        return next(iter(loadable.items()))
    if not loadable and len(files) == 1 and looked:
        return next(iter(looked.items()))
    what = "none of the files is" if not loadable else f"{', '.join(loadable)} are"
    raise CliError(f"{what} a model file on its own; say which to open with --entrypoint")


def with_memory(requires: Requires, key: str, value: str) -> Requires:
    """Add one `--requires` word: arch=a,b · accelerator=name · memory_mb=N."""
    if key == "arch":
        return replace(requires, arch=tuple(value.split(",")))
    if key == "accelerator":
        return replace(requires, accelerator=value)
    if key == "memory_mb" and value.isdecimal():
        return replace(requires, memory_mb=int(value))
    raise CliError(f"--requires: expected arch=, accelerator= or memory_mb=N; got {key}={value}")
