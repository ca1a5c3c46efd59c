"""Build a version's folder from blobs, prove it, and clear away what nobody needs.

A folder is built aside and gets its name by one rename, so a folder with a version's name is
complete. It holds exactly the manifest's files, as hard links to read-only blobs (copies where
links cannot be), and no links or special files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pilotwave_agent.core.compare import pending
from pilotwave_agent.core.state import DeviceState, ModelSlot
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout, folder_name, named_by
from pilotwave_agent.live.links import About
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.digest import CHUNK, hash_stream
from pilotwave_protocol.errors import BadManifest, BadName, RefusedError
from pilotwave_protocol.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    Variant,
    VersionManifest,
    parse_manifest,
)
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.names import check_file_path
from pilotwave_protocol.states import ModelState, Reason

_STAGING = ".staging-"
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
_READ_ONLY = 0o444
_RUNNABLE = 0o555


@dataclass(frozen=True)
class Build:
    """One variant of a version as its verified manifest describes it."""

    manifest: VersionManifest
    variant: Variant


def keep_manifest(disk: Disk, layout: Layout, sha256: str, raw: bytes) -> None:
    """Keep a verified manifest under its digest: later steps read it without asking TUF again."""
    path = layout.blobs / sha256
    if disk.size(path) == len(raw) and disk.read(path) == raw:
        disk.sync_file(path)  # whoever wrote it may have been killed before it was on disk
        return
    disk.make_dirs(layout.blobs)
    disk.write_atomic(path, raw, _READ_ONLY)


def build_of(disk: Disk, layout: Layout, version: Installed) -> Build:
    """Read a kept manifest back; one that is lost or damaged raises `RefusedError`."""
    path = layout.blobs / version.sha256
    size = disk.size(path)
    try:
        if size is None or size > MAX_MANIFEST_BYTES:
            raise BadManifest(f"{version.version}: its manifest is not on disk")
        with path.open("rb") as stream:
            found, _ = hash_stream(stream)
        if found != version.sha256:
            raise BadManifest(f"{version.version}: its manifest is damaged on disk")
        manifest = parse_manifest(disk.read(path))
    except BadManifest as e:
        raise RefusedError(Reason.MANIFEST_INVALID, str(e)) from e
    variant = manifest.variant(version.variant)
    if variant is None:
        sentence = f"{version.version} has no variant {version.variant}"
        raise RefusedError(Reason.VARIANT_UNKNOWN, sentence)
    return Build(manifest, variant)


def stage(disk: Disk, layout: Layout, model: str, version: Installed, build: Build) -> None:
    """Make a version's folder and prove it.

    Raises `RefusedError(BLOB_MISMATCH)` after removing the blobs that are not what they should be.
    """
    folder = layout.version(model, version)
    if folder.is_dir() and not folder.is_symlink():
        if not problems(folder, build.variant, deep=True):
            disk.sync_dir(folder.parent)
            _describe(disk, layout, model, version, build)
            return
        _set_aside(disk, folder)
    staging = folder.with_name(f"{_STAGING}{folder.name}")
    disk.make_dirs(folder.parent)
    disk.remove_tree(staging)
    disk.mkdir(staging)
    for entry in build.variant.files:
        _place(disk, layout.blobs / entry.sha256, staging, entry)
    program = staging / build.variant.entrypoint
    if build.variant.is_program and disk.size(program) is not None:
        disk.chmod(program, _RUNNABLE)
        disk.sync_file(program)  # a power cut may take back what is only a file's mode
    found = problems(staging, build.variant, deep=True)
    if found:
        _drop_bad_blobs(disk, layout, build.variant)
        disk.remove_tree(staging)
        raise RefusedError(Reason.BLOB_MISMATCH, f"{model} {version.version}: {found[0]}")
    for inner in _folders(staging):
        disk.sync_dir(inner)
    disk.move(staging, folder)
    _describe(disk, layout, model, version, build)


def _describe(disk: Disk, layout: Layout, model: str, version: Installed, build: Build) -> None:
    """Write for applications what they must know to open the version (docs/device.md)."""
    variant = build.variant
    about = About(
        model=model,
        version=version.version,
        variant=variant.name,
        sha256=version.sha256,
        runtime=variant.runtime,
        entrypoint=variant.entrypoint,
        precision=variant.precision,
        cases=variant.selftest.cases if variant.selftest else None,
        inputs=tuple(asdict(t) for t in variant.inputs),
        outputs=tuple(asdict(t) for t in variant.outputs),
        compare=asdict(variant.compare) if variant.compare else None,
    )
    path, raw = layout.about(model, version), about.to_bytes()
    if disk.size(path) != len(raw) or disk.read(path) != raw:
        disk.make_dirs(path.parent)
        disk.write_atomic(path, raw, 0o644)


def _set_aside(disk: Disk, folder: Path) -> None:
    trash = folder.with_name(f"{_STAGING}trash-{folder.name}")
    disk.remove_tree(trash)
    disk.move(folder, trash)
    disk.remove_tree(trash)


def _place(disk: Disk, blob: Path, staging: Path, entry: FileEntry) -> None:
    parts = check_file_path(entry.path).split("/")
    folder = staging
    for part in parts[:-1]:
        folder = folder / part
        disk.mkdir(folder)
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise BadName(f"{entry.path}: {part} is not a folder")
    if disk.size(blob) is None:
        return  # the proof that follows names what is missing
    place_file(disk, blob, folder / parts[-1])


def place_file(disk: Disk, source: Path, target: Path) -> None:
    """Give a read-only file a second name, or a copy where it can have none."""
    try:
        disk.link(source, target)
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        _copy(disk, source, target)


def _copy(disk: Disk, source: Path, target: Path) -> None:
    fd = disk.open_new(target, _READ_ONLY)
    try:
        with source.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                disk.write(fd, chunk)
        disk.sync_fd(fd)
    finally:
        os.close(fd)


def problems(folder: Path, variant: Variant, *, deep: bool) -> list[str]:
    """Say how a folder differs from the manifest: files, sizes and, if `deep`, digests."""
    wanted = {entry.path: entry for entry in variant.files}
    found = dict(_walk(folder, folder))
    extra = [f"{path} does not belong to it" for path in sorted(found.keys() - wanted.keys())]
    missing = [f"{path} is missing" for path in sorted(wanted.keys() - found.keys())]
    wrong = [
        f"{path} is not what its publisher signed"
        for path, entry in wanted.items()
        if path in found and not _is_entry(folder / path, found[path], entry, deep=deep)
    ]
    return [*wrong, *missing, *extra]


def _walk(top: Path, folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as items:
        for item in sorted(items, key=lambda i: i.name):
            if item.is_dir(follow_symlinks=False):
                yield from _walk(top, Path(item.path))
            else:
                yield os.path.relpath(item.path, top), item.stat(follow_symlinks=False)


def _is_entry(path: Path, found: os.stat_result, entry: FileEntry, *, deep: bool) -> bool:
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
        return False
    if not deep:
        return True
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as stream:
        return hash_stream(stream) == (entry.sha256, entry.size)


def _folders(top: Path) -> Iterator[Path]:
    """Yield a folder and those in it, innermost first."""
    for root, _, _ in os.walk(top, topdown=False):
        yield Path(root)


def _drop_bad_blobs(disk: Disk, layout: Layout, variant: Variant) -> None:
    for entry in variant.files:
        path = layout.blobs / entry.sha256
        if disk.size(path) is None:
            continue
        with path.open("rb") as stream:
            good = hash_stream(stream) == (entry.sha256, entry.size)
        if not good:
            disk.unlink(path)


def intact(disk: Disk, layout: Layout, model: str, version: Installed, *, deep: bool) -> bool:
    """Say whether an installed version is still what was verified."""
    folder = layout.version(model, version)
    if not folder.is_dir():
        return False
    try:
        return not problems(folder, build_of(disk, layout, version).variant, deep=deep)
    except RefusedError:
        return False


def clear(disk: Disk, layout: Layout, state: DeviceState) -> None:
    """Remove version folders and blobs that no version of use needs."""
    blobs: set[str] = set()
    for slot in state.models.values():
        keep = _kept(slot, state.memory)
        if (wish := pending(state, slot)) is not None:
            keep |= {*wish.versions}
        # whatever the link names may be in use, even where a lost journal knows nothing of it
        names = {folder_name(v) for v in keep} | {named_by(disk, layout, slot.model, "current")}
        for name in disk.names(layout.versions(slot.model)):
            if name not in names:
                disk.remove_tree(layout.versions(slot.model) / name)
        for name in disk.names(layout.abouts(slot.model)):
            if name.removesuffix(".json") not in names:
                disk.unlink(layout.abouts(slot.model) / name)
        blobs |= _blobs_of(disk, layout, keep)
    blobs |= {order.sha256 for order in state.orders.values()}
    for name in disk.names(layout.blobs):
        if name.split(".")[0] not in blobs:  # parts, deltas and what is made with them
            disk.unlink(layout.blobs / name)


def _kept(slot: ModelSlot, memory: AntiRollback) -> set[Installed]:
    """Return the versions whose files are still of use. What runs is kept whatever it is."""
    others = {slot.previous, slot.last_healthy, slot.older}
    if slot.state not in (ModelState.FAILED, ModelState.ROLLED_BACK):
        others.add(slot.candidate)
    keep = {v for v in others if v and not memory.forbids(slot.model, v.sha256, v.counter)}
    return keep | {slot.current} if slot.current else keep


def _blobs_of(disk: Disk, layout: Layout, versions: Iterable[Installed]) -> set[str]:
    found: set[str] = set()
    for version in versions:
        found.add(version.sha256)
        try:
            build = build_of(disk, layout, version)
        except RefusedError:
            continue
        found |= {entry.sha256 for entry in build.variant.files}
    return found
