"""Make a version manifest from folders: hash the files, sniff the format, read the io schema."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.check_escalate import check_escalate
from pilotwave_cli.publish.check_golden import Schema, check_cases, is_cases, schema_of
from pilotwave_cli.publish.check_reference import check_reference
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol import accelerators, digest, names, secrets, sniff
from pilotwave_protocol.errors import BadName
from pilotwave_protocol.escalate import ESCALATE
from pilotwave_protocol.formats import COMMAND, OPENS
from pilotwave_protocol.manifest import FileEntry, Requires, SelfTest, TensorSpec, Variant
from pilotwave_protocol.reference import REFERENCE
from pilotwave_protocol.tensortypes import CASES, CASES_JSON

LEFT_OUT = frozenset({".DS_Store", ".gitattributes", ".gitignore", "Thumbs.db", "desktop.ini"})
"""What desktops and Git leave in ordinary folders."""
Looked = Mapping[str, sniff.Sniffed]
NAMELESS = ("torchscript", "torchscript-lite", "executorch", "gguf")
"""Formats whose files name neither inputs nor outputs: they count by position."""


@dataclass(frozen=True)
class Built:
    """A variant, and where each of its blobs lies on this machine."""

    variant: Variant
    sources: Mapping[str, Path]


def build_variant(
    name: str, source: Path, wanted: VariantOptions, *, with_cases: bool = True
) -> Built:
    """Describe a file or folder as a variant, or raise `CliError` saying what is wrong with it.

    Without `with_cases` its golden cases are left out, as they are to be written anew.
    """
    names.check_variant(name)
    files = _files(source)
    if not with_cases:
        files = {p: real for p, real in files.items() if p not in (CASES, CASES_JSON)}
    _check_secrets(files, wanted.not_secret)
    entries, sources = [], {}
    for path, real in files.items():
        sha256, size = digest.hash_file(real)
        entries.append(FileEntry(path, size, sha256))
        sources[sha256] = real
    entrypoint, found, looked = _look(source, files, wanted.entrypoint)
    sizes = {entry.path: entry.size for entry in entries}
    if lacking := sniff.missing_companion(found, entrypoint, sizes):
        raise CliError(f"{source}: {lacking}")
    danger = _danger(looked, entrypoint)
    if danger and not wanted.unsafe_format:
        raise CliError(
            f"{source}: {danger}; "
            "publish it with --unsafe-format if the devices are allowed to take that"
        )
    runtime = wanted.runtime or found.runtime
    if runtime is None:
        raise CliError(f"{source}: {_without_runtime(found)}")
    cases = _cases(files)
    if cases:
        check_cases(files[cases], found)
    if ESCALATE in files:
        check_escalate(files[ESCALATE], found)
    if REFERENCE in files:
        check_reference(files[REFERENCE], found)
    opened = OPENS.get(runtime)
    if opened is not None and found.format not in opened:
        raise CliError(
            f"{source}: {entrypoint} is {found.format}; {runtime} opens {' or '.join(opened)}"
        )
    schema = _schema(found, files, wanted)
    chip = sniff.compiled_for(runtime, found, looked.values())
    _check_accelerator(source, chip, wanted.requires.accelerator)
    variant = Variant(
        name=name,
        runtime=runtime,
        runtime_version=wanted.runtime_version or found.runtime_version or "",
        precision=found.precision or "",
        format=found.format,
        requires=_requires(chip, found.arch, wanted),
        entrypoint=entrypoint,
        files=tuple(entries),
        inputs=_specs(schema.inputs),
        outputs=_specs(schema.outputs),
        selftest=_selftest(files, wanted),
        unsafe_format=danger is not None,
        compare=wanted.compare,
    )
    return Built(variant, sources)


def _schema(found: sniff.Sniffed, files: Mapping[str, Path], wanted: VariantOptions) -> Schema:
    """What the file says; where it names no inputs or outputs, what the golden cases say."""
    cases = _cases(files)
    if found.format in NAMELESS and cases:
        return schema_of(files[cases], wanted.inputs, wanted.outputs)
    named = all(t.name for t in (*found.inputs, *found.outputs))
    return Schema(found.inputs, found.outputs) if named else Schema()


def _without_runtime(found: sniff.Sniffed) -> str:
    if found.accelerator:
        return (
            f"no runtime of a device opens {found.format}; put a program beside it that does, and "
            f"publish the folder with --runtime {COMMAND} --entrypoint PROGRAM --unsafe-format"
        )
    return f"no runtime is known for {found.format}; say --runtime"


def _check_accelerator(source: Path, chip: str | None, asked: str | None) -> None:
    if chip and asked and not accelerators.keeps_to(asked, chip):
        raise CliError(
            f"{source}: was compiled for {chip}; with --requires accelerator={asked} it "
            f"would reach devices without it; say --requires accelerator={chip}"
        )


def _requires(chip: str | None, arch: str | None, wanted: VariantOptions) -> Requires:
    """What it was compiled for is required, unless something else was said."""
    asked = wanted.requires
    return replace(
        asked,
        arch=asked.arch or ((arch,) if arch else ()),
        accelerator=asked.accelerator or chip,
    )


def _cases(files: Mapping[str, Path]) -> str | None:
    """Return the file of golden cases. Beside the safetensors, a JSON file only adds to them."""
    if CASES in files:
        return CASES
    return CASES_JSON if CASES_JSON in files and is_cases(files[CASES_JSON]) else None


def _selftest(files: Mapping[str, Path], wanted: VariantOptions) -> SelfTest | None:
    cases = _cases(files)
    if cases is None and wanted.min_agreement is not None:
        raise CliError(f"--min-agreement: expected golden cases, {CASES}; there are none")
    if cases is None:
        return None
    return SelfTest(cases, wanted.atol, wanted.rtol, wanted.max_latency_ms, wanted.min_agreement)


def _specs(tensors: tuple[sniff.Tensor, ...]) -> tuple[TensorSpec, ...]:
    # a rank that the file does not tell leaves nothing to hold a device to
    return tuple(TensorSpec(t.name, t.dtype, t.shape) for t in tensors if t.shape is not None)


def _files(source: Path) -> dict[str, Path]:
    """Return path inside the variant -> file; links, hidden and special files are refused."""
    if source.is_symlink() or not source.exists():
        raise CliError(f"{source}: no such file or folder (links are not followed)")
    if not (source.is_file() or source.is_dir()):
        raise CliError(f"{source}: is a special file; expected a model file or a folder")
    if source.is_file():
        return {_checked(source.name, source): source}
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(source):
        for name in sorted([*folders, *files]):
            path = Path(folder) / name
            if name in LEFT_OUT:
                output.warn(f"{path}: is left out; no model needs it")
                continue
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise CliError(f"{path}: is a link or a special file; only plain files are shipped")
            inside = _checked(path.relative_to(source).as_posix(), path)
            if stat.S_ISREG(mode):
                found[inside] = path
    if not found:
        raise CliError(f"{source}: expected model files; the folder is empty")
    _check_twins(found)
    return dict(sorted(found.items()))


def _check_twins(files: Iterable[str]) -> None:
    """Refuse names that are one on a disk that does not tell capital letters from small ones."""
    taken: dict[str, str] = {}
    for inside in files:
        if other := taken.get(inside.lower()):
            raise CliError(f"{inside} and {other} differ only in capital letters: rename one")
        taken[inside.lower()] = inside


def _check_secrets(files: Mapping[str, Path], allowed: Iterable[str]) -> None:
    """Refuse what looks secret. A private key is never shipped; the rest can be only alike."""
    if stray := sorted(set(allowed) - files.keys()):
        raise CliError(f"--not-secret {stray[0]}: is not among the files")
    for inside, real in files.items():
        found = secrets.secret_in_file(real)
        if found and found.certain:
            raise CliError(
                f"{real}: holds {found.what}, which is never shipped; move it out of the folder"
            )
        if found and inside not in allowed:
            raise CliError(
                f"{real}: holds what looks like {found.what}; take it out, or say "
                f"--not-secret {inside} if it is none"
            )


def _checked(inside: str, path: Path) -> str:
    if word := secrets.secret_by_name(inside):
        raise CliError(f"{path}: {word} is where secrets are kept; it is never shipped")
    try:
        return names.check_file_path(inside)
    except BadName as e:
        raise CliError(f"{path}: cannot be shipped under this name: {e}") from e


def _danger(looked: Looked, entrypoint: str) -> str | None:
    """Say which file can run code when it is loaded. A companion of unknown kind is only data."""
    for path, found in looked.items():
        if found.unsafe and (path == entrypoint or found.format != "unknown"):
            return f"{path} is not safe to load: {found.unsafe}"
    return None


def _look(
    source: Path, files: Mapping[str, Path], chosen: str | None
) -> tuple[str, sniff.Sniffed, Looked]:
    """Return the file that a runtime opens, what it is, and what each file is.

    A companion that cannot be read as a model is data; only the entrypoint must be one.
    """
    looked: dict[str, sniff.Sniffed] = {}
    broken: dict[str, sniff.BadModel] = {}
    for path, real in files.items():
        try:
            looked[path] = sniff.sniff_file(real)
        except sniff.BadModel as e:
            looked[path], broken[path] = sniff.UNKNOWN, e
    if chosen is None:
        chosen = _entrypoint(source, looked, broken)
    elif chosen not in looked:
        raise CliError(f"--entrypoint {chosen}: is not among the files of {source}")
    if chosen in broken:
        raise broken[chosen]
    return chosen, looked[chosen], looked


def _entrypoint(source: Path, looked: Looked, broken: Mapping[str, sniff.BadModel]) -> str:
    loadable = [path for path, found in looked.items() if found.runtime is not None]
    if len(loadable) == 1:
        return loadable[0]
    if not loadable and broken:
        raise next(iter(broken.values()))
    if len(looked) == 1:
        return next(iter(looked))
    what = "none of the files is" if not loadable else f"{', '.join(loadable)} are each"
    raise CliError(f"{source}: {what} a model file; say which to open with --entrypoint")
