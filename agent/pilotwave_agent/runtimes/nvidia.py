"""What TensorRT is on this device, and for which GPU it builds. No program is run to learn it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pilotwave_agent.hardware.board import jetson_facts
from pilotwave_agent.hardware.texts import names, text

_LIBRARIES = ("usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/local/tensorrt/lib")
_TOOLS = ("usr/src/tensorrt/bin", "usr/local/tensorrt/bin", "opt/tensorrt/bin")
_LIBRARY = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)")
_CARDS = "proc/driver/nvidia/gpus"


def gpu(root: Path = Path("/")) -> str | None:
    """Return what engines are bound to: a Jetson's architecture (`sm_87`), else a card's name."""
    sm = jetson_facts(root).get("jetson.sm")
    if sm:
        return f"sm_{sm}"
    for card in names(root / _CARDS):
        found = re.search(
            r"^Model:\s*(.+)$", text(root / _CARDS / card / "information") or "", re.M
        )
        if found:
            return re.sub(r"\W+", "_", found[1].strip()).lower()
    return None


def has_trtexec(root: Path = Path("/")) -> bool:
    """Say whether NVIDIA's tool for building and running engines is here."""
    return trtexec(root) is not None


def trtexec(root: Path = Path("/")) -> str | None:
    """Return where `trtexec` is: on the PATH, or where JetPack puts it, which is not."""
    on_path = shutil.which("trtexec") if root == Path("/") else None
    return on_path or shutil.which("trtexec", path=os.pathsep.join(str(root / t) for t in _TOOLS))


def tensorrt_version(root: Path = Path("/")) -> str | None:
    """Return TensorRT's version from the name of its library, which is the same on every install.

    It lies in the system's folders, where LD_LIBRARY_PATH says, or beside `trtexec`.
    """
    for folder in _folders(root):
        for name in names(folder):
            found = _LIBRARY.fullmatch(name)
            if found:
                return found[1]
    return None


def _folders(root: Path) -> Iterator[Path]:
    if root == Path("/"):
        yield from map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
    program = trtexec(root)
    if program:
        yield Path(program).resolve().parent.parent / "lib"
    yield from (root / name for name in _LIBRARIES)
