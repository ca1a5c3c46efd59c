"""Tell what a zip archive is (TorchScript, torch.export, MAR, Keras) and what in it may run code.

The archive is listed, its checksums are compared, small members are read; nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import Sniffed

PICKLE = "it holds Python pickles, and loading a pickle can run any code"
_MEMBER_LIMIT = 4 << 20
_MAX_MEMBERS = 100_000
_MAX_NAMES = 8
_MAX_OPCODES = 200_000
_CHUNK = 1 << 20
_HARMLESS = ("torch", "collections", "__torch__", "numpy")
_FORWARD = "def forward(self: "


class Archive:
    """An open archive over a view of a file."""

    def __init__(self, data: memoryview) -> None:
        """Raise BadModel for one that is damaged: a checksum differs, the directory is cut off."""
        try:
            self._size = len(data)
            self._zip = zipfile.ZipFile(_View(data))
            if len(self._zip.infolist()) > _MAX_MEMBERS:
                raise BadModel(f"the archive holds more than {_MAX_MEMBERS} files")
            self._check()
        except (
            zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, zlib.error,
            RuntimeError, EOFError, OverflowError,
        ) as e:  # fmt: skip
            raise BadModel("it is a damaged or cut off zip archive") from e

    def _check(self) -> None:
        """Compare the checksums of what lies there as it is: loaders of such files do not."""
        members = self._zip.infolist()
        if sum(m.compress_size for m in members) > self._size:
            raise BadModel("members of the archive lie over each other")
        for member in members:
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                with self._zip.open(member) as stream:
                    while stream.read(_CHUNK):
                        pass

    @property
    def names(self) -> list[str]:
        """The members' paths."""
        return self._zip.namelist()

    def read(self, name: str) -> bytes:
        """Return the beginning of a member, b"" for one that cannot be read."""
        try:
            with self._zip.open(name) as stream:
                return stream.read(_MEMBER_LIMIT)
        except Exception:  # a bad member of an archive is no reason to fail
            return b""


def read_archive(data: memoryview) -> Sniffed:
    """Describe a zip archive; raise BadModel for a damaged one."""
    archive = Archive(data)
    names = archive.names
    inner = {name.split("/", 1)[-1] for name in names}
    if "MAR-INF/MANIFEST.json" in names:
        return Sniffed("torchserve-mar", None, unsafe="a MAR archive holds Python code")
    if "metadata.json" in names and "config.json" in names:
        return _keras(archive)
    if "archive_format" in inner:
        return Sniffed("torch-export", "torch", unsafe=_pickles(archive))
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return _torchscript(archive, inner)
    if any(name.endswith(".pkl") for name in inner):
        return Sniffed("pickle", None, unsafe=_pickles(archive))
    return Sniffed("zip", None, unsafe="it is an archive, and devices open no archives")


def _torchscript(archive: Archive, inner: set[str]) -> Sniffed:
    lite = "bytecode.pkl" in inner
    details: dict[str, str | int] = {}
    if arguments := _arguments(archive):
        details["inputs"] = ", ".join(arguments)
    if any(name.startswith("traced_inputs") for name in inner):
        details["traced_inputs"] = "the inputs it was traced with are in the file"
    for name in archive.names:
        if name.rsplit("/", 1)[-1] in ("version", ".data/version") and name.count("/") < 3:
            version = archive.read(name)[:8].strip()
            if version.isdigit():
                details["archive_version"] = int(version)
    kind = "torchscript-lite" if lite else "torchscript"
    return Sniffed(kind, "torch", unsafe=_pickles(archive), details=details)


def _arguments(archive: Archive) -> list[str]:
    """Return the names of what `forward` of the outermost module takes, from its source."""
    sources = [n for n in archive.names if "/code/__torch__" in n and n.endswith(".py")]
    for name in sorted(sources, key=lambda n: (n.count("/"), n))[:_MAX_NAMES]:
        _, found, rest = archive.read(name).decode(errors="replace").rpartition(_FORWARD)
        taken, closed, _ = rest.partition(")")
        if found and closed:
            return list(islice(_argument_names(taken), 64))
    return []


def _argument_names(taken: str) -> Iterator[str]:
    """Yield the names in `__torch__.Net, x: Tensor, y: Dict[str, int]`, in one pass."""
    for part in taken.split(",")[1:]:
        name, typed, _ = part.partition(":")
        if typed and name.strip().isidentifier():
            yield name.strip()


def _pickles(archive: Archive) -> str:
    """Say which members are pickles and which of them call something that is not the format's."""
    pickles = [name for name in archive.names if name.endswith(".pkl")]
    calls = sorted({call for name in pickles[:_MAX_NAMES] for call in _calls(archive.read(name))})
    words = f"{PICKLE} ({', '.join(pickles[:3])}"
    return words + (f"; they call {', '.join(calls[:_MAX_NAMES])})" if calls else ")")


def _calls(raw: bytes) -> Iterator[str]:
    """Yield what a pickle would import that models have no use for."""
    texts: list[str] = []
    try:
        for opcode, argument, _ in islice(pickletools.genops(raw), _MAX_OPCODES):
            name = None
            if opcode.name in ("GLOBAL", "INST"):
                name = str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                name = ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
            if name and name.split(".")[0] not in _HARMLESS:
                yield name[:100]
    except Exception:  # what cannot be read to its end was named as far as it went
        return


def _keras(archive: Archive) -> Sniffed:
    """Keras runs the code of a Lambda layer that comes with the file."""
    try:
        config = json.loads(archive.read("config.json"))
    except (ValueError, RecursionError):
        return Sniffed("keras", None, unsafe="its config.json cannot be read")
    layers = sorted(set(_lambdas(config, 0)))
    if layers:
        named = ", ".join(layers[:_MAX_NAMES])
        return Sniffed("keras", None, unsafe=f"a Lambda layer holds Python code ({named})")
    return Sniffed("keras", None)


def _lambdas(node: object, depth: int) -> Iterator[str]:
    if depth > 100:
        yield "nested too deep to be read"
    elif isinstance(node, dict):
        if node.get("class_name") in ("Lambda", "__lambda__"):
            inner = node.get("config")
            yield str(inner.get("name", "unnamed") if isinstance(inner, dict) else "unnamed")[:64]
        for value in node.values():
            yield from _lambdas(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            yield from _lambdas(value, depth + 1)


class _View(io.RawIOBase):
    """A read-only file over a memoryview, so that a large archive is not copied to be listed."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._at + size
        chunk = bytes(self._data[self._at : end])
        self._at += len(chunk)
        return chunk
