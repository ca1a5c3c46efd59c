"""What a new version consists of: its manifest and its blobs, and whether they are what they claim.

12 the manifest is here, has the signed digest and length, parses, and is of this very version
13 every blob that it lists is here, with its size
14 the files are what they are said to be; what can run code when loaded is signed as such; none of
   them is or holds a private key
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pilotwave_protocol import accelerators, secrets, sniff
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadManifest
from pilotwave_protocol.formats import AGENT_RUNTIMES, OPENS
from pilotwave_protocol.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    TensorSpec,
    Variant,
    VersionManifest,
    parse_manifest,
)
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.trust import VersionTarget
from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.errors import Invalid


class ManifestMissing(Invalid):
    code = "manifest_missing"


class ManifestMismatch(Invalid):
    code = "manifest_mismatch"


class ManifestInvalid(Invalid):
    code = "manifest_invalid"


class ManifestOfAnother(Invalid):
    code = "manifest_of_another"


class BlobsMissing(Invalid):
    """Upload these first; then hand the metadata in again."""

    code = "blobs_missing"


class BlobSizeWrong(Invalid):
    code = "blob_size_wrong"


class FormatMismatch(Invalid):
    code = "format_mismatch"


class SchemaMismatch(Invalid):
    code = "schema_mismatch"


class AcceleratorMissing(Invalid):
    """A file that was compiled for a chip goes to devices that have it and to no others."""

    code = "accelerator_missing"


class UnsafeFormat(Invalid):
    code = "unsafe_format"


class PrivateKeyFound(Invalid):
    """A version goes to every device and never changes: a key in it is lost."""

    code = "private_key_found"


@dataclass(frozen=True)
class CheckedVersion:
    """A new version whose manifest and blobs were found right."""

    target: VersionTarget
    manifest: VersionManifest
    raw: bytes


def check_contents(
    targets: Iterable[VersionTarget], *, given: Iterable[bytes], blobs: BlobStore
) -> list[CheckedVersion]:
    """Steps 12 to 14 for each new version. `given` are manifests that came with the request;
    others are taken from the blob store."""
    by_digest = {sha256_hex(raw): raw for raw in given}
    wanted = {target.sha256 for target in targets}
    stray = sorted(set(by_digest) - wanted)
    checked = []
    for target in targets:
        raw = by_digest.get(target.sha256)
        if raw is None:
            raw = _stored_manifest(target, blobs, stray)
        manifest = read_manifest(raw, target)
        check_blobs(manifest, blobs)
        check_formats(manifest, target, blobs)
        checked.append(CheckedVersion(target, manifest, raw))
    if stray and not wanted:
        raise ManifestMismatch("a manifest came, but the role has no new version to go with it")
    return checked


def _stored_manifest(target: VersionTarget, blobs: BlobStore, stray: list[str]) -> bytes:
    named = f"{target.model} {target.version}"
    try:
        return blobs.read(target.sha256, MAX_MANIFEST_BYTES + 1)
    except BlobMissing:
        pass
    if stray:
        raise ManifestMismatch(
            f"{named}: the manifest that came has the SHA-256 {stray[0]}, signed is {target.sha256}"
        )
    raise ManifestMissing(f"{named}: send its manifest along, or upload it as a blob")


def read_manifest(raw: bytes, target: VersionTarget) -> VersionManifest:
    """Step 12."""
    named = f"{target.model} {target.version}"
    if len(raw) != target.length:
        raise ManifestMismatch(
            f"{named}: the manifest has {len(raw)} bytes, signed is {target.length}"
        )
    try:
        manifest = parse_manifest(raw)
    except BadManifest as error:
        raise ManifestInvalid(f"{named}: {error}") from error
    if (manifest.model, manifest.version) != (target.model, target.version):
        raise ManifestOfAnother(
            f"{named}: the manifest is that of {manifest.model} {manifest.version}"
        )
    if manifest.counter != target.counter:
        raise ManifestOfAnother(
            f"{named}: the manifest has the counter {manifest.counter}, signed is {target.counter}"
        )
    return manifest


def files_of(manifest: VersionManifest) -> dict[str, FileEntry]:
    """The distinct blobs of a manifest by digest."""
    return {f.sha256: f for variant in manifest.variants for f in variant.files}


def digests_of(versions: Collection[CheckedVersion]) -> set[str]:
    """The digests of all files of some versions, and of their manifests."""
    found = {version.target.sha256 for version in versions}
    return found.union(*(files_of(version.manifest) for version in versions))


def check_blobs(manifest: VersionManifest, blobs: BlobStore) -> None:
    """Step 13."""
    sizes = blobs.sizes(files_of(manifest))
    missing = sorted(sha256 for sha256, size in sizes.items() if size is None)
    if missing:
        raise BlobsMissing(
            f"{len(missing)} of {len(sizes)} blobs are not here yet, {missing[0]} is one of them",
            missing=missing,
        )
    for variant in manifest.variants:
        for file in variant.files:
            if sizes[file.sha256] != file.size:
                raise BlobSizeWrong(
                    f"{variant.name}/{file.path}: the manifest says {file.size} bytes,"
                    f" its blob has {sizes[file.sha256]}"
                )


def check_formats(manifest: VersionManifest, target: VersionTarget, blobs: BlobStore) -> None:
    """Step 14."""
    if manifest.unsafe_format != target.unsafe_format:
        raise UnsafeFormat(
            f"{target.model} {target.version}: unsafe_format must be the same in the manifest and"
            " in the signed target"
        )
    for variant in manifest.variants:
        _check_of_agent(manifest.model, variant)
        looked = {f.path: check_file(variant, f, blobs) for f in variant.files}
        _check_accelerator(variant, looked)


def _check_of_agent(model: str, variant: Variant) -> None:
    """The reserved model holds agents and nothing else; no other model holds one."""
    agent = variant.runtime in AGENT_RUNTIMES
    if model == AGENT_MODEL and not agent:
        raise FormatMismatch(
            f"{variant.name}: {AGENT_MODEL} is the agent itself, which is a"
            f" {' or a '.join(AGENT_RUNTIMES)}; this is for {variant.runtime}"
        )
    if model != AGENT_MODEL and variant.runtime == AGENT_RUNTIMES[0]:
        raise FormatMismatch(
            f"{variant.name}: a {variant.runtime} is an agent, and {AGENT_MODEL} is the model of"
            " agents; a program with its model is published with --runtime command"
        )


def check_file(variant: Variant, file: FileEntry, blobs: BlobStore) -> sniff.Sniffed:
    """Return what one file of a variant is: the entry point is what it is declared to be, and
    neither it nor a companion runs code when loaded, unless that was signed."""
    where = f"{variant.name}/{file.path}"
    entrypoint = file.path == variant.entrypoint
    data = mapped(file, blobs) if file.size else memoryview(b"")
    check_no_key(where, data)
    try:
        found = look_into(data, file.path)
    except sniff.BadModel as error:
        # what cannot be read as a model is data; only the entry point must be one
        if entrypoint:
            raise FormatMismatch(f"{where}: {error}") from error
        return sniff.UNKNOWN
    if entrypoint:
        _check_declared(variant, where, found)
        sizes = {entry.path: entry.size for entry in variant.files}
        if lacking := sniff.missing_companion(found, file.path, sizes):
            raise FormatMismatch(f"{variant.name}: {lacking}")
    known = entrypoint or found.format != sniff.UNKNOWN.format
    if found.unsafe and known and not variant.unsafe_format:
        raise UnsafeFormat(
            f"{where}: {found.unsafe}; publish it with unsafe_format if that is meant, and allow"
            " it on the devices"
        )
    return found


def check_no_key(where: str, data: memoryview) -> None:
    """Refuse a file that is or holds a private key."""
    if found := secrets.key_in_bytes(data):
        raise PrivateKeyFound(f"{where}: holds {found.what}; take it out and publish without it")


def _check_declared(variant: Variant, where: str, found: sniff.Sniffed) -> None:
    opened = OPENS.get(variant.runtime, ())
    expected = {variant.format} if variant.format else set(opened)
    if expected and found.format not in expected:
        # a format that nobody can tell by its bytes may be declared by whoever signs it as unsafe
        if variant.unsafe_format and found.format == sniff.UNKNOWN.format:
            return
        words = " or ".join(sorted(expected))
        raise FormatMismatch(f"{where}: expected {words}; by its content it is {found.format}")
    if opened and found.format not in opened:
        words = " or ".join(opened)
        raise FormatMismatch(f"{where} is {found.format}; {variant.runtime} opens {words}")
    for kind, declared, there in (
        ("input", variant.inputs, found.inputs),
        ("output", variant.outputs, found.outputs),
    ):
        _check_schema(where, kind, declared, there)


def _check_accelerator(variant: Variant, looked: Mapping[str, sniff.Sniffed]) -> None:
    required = variant.requires.accelerator
    chip = sniff.compiled_for(variant.runtime, looked[variant.entrypoint], looked.values())
    if chip and not accelerators.keeps_to(required, chip):
        raise AcceleratorMissing(
            f"{variant.name} was compiled for {chip} and requires {required or 'no accelerator'};"
            f" publish it with --requires accelerator={chip}"
        )


def _check_schema(
    where: str, kind: str, declared: tuple[TensorSpec, ...], found: tuple[sniff.Tensor, ...]
) -> None:
    """What the manifest says of inputs and outputs is what the file says, if both do."""
    there = {t.name: t for t in found}
    by_position = "" in there
    if by_position and declared and len(declared) != len(found):
        raise SchemaMismatch(f"{where} has {len(found)} {kind}s; {len(declared)} are declared")
    for i, spec in enumerate(declared if found else ()):
        tensor = found[i] if by_position else there.get(spec.name)
        if tensor is None:
            raise SchemaMismatch(f"{where} has no {kind} {spec.name}")
        if spec.dtype != tensor.dtype or not tensor.admits(spec.shape):
            raise SchemaMismatch(
                f"{where}: {kind} {spec.name} is declared as {spec.dtype} {list(spec.shape)};"
                f" the file says {tensor.dtype} {list(tensor.shape or ())}"
            )


def look_into(data: memoryview, path: str) -> sniff.Sniffed:
    """Sniff a file's bytes; BadModel where it is damaged."""
    if not data:
        raise sniff.BadModel("the file is empty")
    return sniff.sniff_bytes(data, path.rpartition("/")[2])


def mapped(file: FileEntry, blobs: BlobStore) -> memoryview:
    """Return a blob's bytes without having them in memory; a view that is let go closes the file,
    whose name may be gone by then."""
    with blobs.local(file.sha256) as path, path.open("rb") as stream:
        # Not closed by hand: the views in a BadModel's traceback would still hold it.
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
