"""Lay a variant's folder out as devices take it: plain files under plain names.

A snapshot of the Hugging Face cache is links into `../../blobs`; they are followed, within that
model's own cache alone. A name with a blank, a colon or a letter of another alphabet becomes one of
as many bytes that every file system, URL and agent takes, and the ONNX files that name it are
changed in those bytes. Nothing is changed where it lies: what is laid out anew is a copy.
"""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_protocol import sniff
from pilotwave_protocol.errors import BadName
from pilotwave_protocol.names import check_file_path

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+@=-")
_INSIDE_ALONE = frozenset(".+@=-")
# what is shown as nothing, or turns round what is shown beside it
_HIDES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@contextmanager
def laid_out(sources: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Give each variant's file or folder, laid out anew where links or names ask for it."""
    with tempfile.TemporaryDirectory(prefix="pilotwave-files-") as temp:
        yield {name: _one(source, Path(temp) / name) for name, source in sources.items()}


def plain_name(name: str) -> str:
    """Return a path component of as many bytes whose characters every agent takes.

    Raises `CliError` for one that hides what it is.
    """
    if any(unicodedata.category(c) in _HIDES for c in name):
        raise CliError(f"{name!a}: a name with invisible characters is not shipped")
    if name.startswith("."):
        return name  # hidden: refused later, with its reason
    made = "".join(c if c in _PLAIN else "_" * len(c.encode()) for c in name)
    head, tail = made[:1], made[-1:]
    made = "_" + made[1:] if head in _INSIDE_ALONE else made
    return made[:-1] + "_" if tail == "." else made


def _one(source: Path, folder: Path) -> Path:
    root = _root(source)
    files = dict(_walk(source, root))
    renamed = {inside: plain for inside in files if (plain := _plain(inside)) != inside}
    if not renamed and not any(path.is_symlink() for path in (source, *files.values())):
        return source
    _check_twins(files, renamed)
    for inside, path in files.items():
        target = folder / renamed.get(inside, inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        real = path.resolve(strict=True)
        _copy(real, target, changes=target.suffix == ".onnx")
        if inside in renamed:
            output.warn(f"{path.name!r} is shipped as {PurePosixPath(renamed[inside]).name}")
    return folder if source.is_dir() else next(iter(p for p in folder.iterdir()))


def _plain(inside: str) -> str:
    return "/".join(map(plain_name, inside.split("/")))


def _check_twins(files: Mapping[str, Path], renamed: Mapping[str, str]) -> None:
    taken: dict[str, str] = {}
    for inside in files:
        plain = renamed.get(inside, inside)
        if plain in taken:
            raise CliError(
                f"{inside!a} and {taken[plain]!a} would both be shipped as {plain}: rename one"
            )
        taken[plain] = inside


def _root(source: Path) -> Path:
    """The folder within which links are followed: a snapshot's own cache, or the source itself."""
    folder = Path(os.path.abspath(source if source.is_dir() else source.parent))
    for here in (folder, *folder.parents):
        if here.parent.name == "snapshots" and (here.parent.parent / "blobs").is_dir():
            return here.parent.parent.resolve()
    return folder.resolve()


def _walk(source: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (path inside, path) of each file; what is no file is left to those that come after."""
    if not source.is_dir():
        if source.exists() or source.is_symlink():
            _check_link(source, root)
            yield source.name, source
        return
    for folder, folders, names in os.walk(source):
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            _check_link(path, root)
            if stat.S_ISDIR(path.lstat().st_mode):
                continue
            yield path.relative_to(source).as_posix(), path


def _check_link(path: Path, root: Path) -> None:
    """`CliError` for a link that leads out of `root`, in a circle, or to anything but a file."""
    if not path.is_symlink():
        return
    try:
        real = path.resolve(strict=True)
        leads = real.is_relative_to(root) and stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError) as e:
        raise CliError(f"{path}: is a link that leads nowhere") from e
    if not leads:
        raise CliError(
            f"{path}: is a link to {real}; links are followed to files within {root} alone"
        )


def _copy(real: Path, target: Path, *, changes: bool) -> None:
    if changes and (places := _odd_locations(real)):
        shutil.copyfile(real, target)
        _rename_locations(target, places)
        return
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)


def _odd_locations(path: Path) -> dict[str, str]:
    """The external data that an ONNX file names, where the name is not a plain one."""
    try:
        needs = sniff.sniff_file(path).needs
    except sniff.BadModel:
        return {}
    return {name: _plain(name) for name in needs if not _is_plain(name)}


def _is_plain(inside: str) -> bool:
    try:
        return bool(check_file_path(inside))
    except BadName:
        return False


def _rename_locations(path: Path, places: Mapping[str, str]) -> None:
    """Overwrite each name where the file's `external_data` has it: as many bytes as before, so no
    length in the file changes.

    An entry is `key` (field 1, "location") and `value` (field 2):
    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (StringStringEntryProto)
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for old, new in places.items():
            raw = old.encode()
            entry = b"\x0a\x08location\x12" + _varint(len(raw)) + raw
            at = data.find(entry)
            while at >= 0:
                end = at + len(entry)
                data[end - len(raw) : end] = new.encode()
                at = data.find(entry, end)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
