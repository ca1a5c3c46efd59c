"""What of NVIDIA's is on this device: Jetson, L4T, GPU, TensorRT. No program is run for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# Tegra chip -> GPU architecture
_CHIPS = {
    "tegra210": "sm_53",
    "tegra186": "sm_62",
    "tegra194": "sm_72",
    "tegra234": "sm_87",
    "tegra264": "sm_110",
}
_JETPACKS = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7, 39: 7}
_LIBRARIES = ("usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/local/tensorrt/lib")
_LIBRARY = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)")


def gpu(root: Path = Path("/")) -> str | None:
    """Return the GPU's architecture as engines are bound to it; None where it is not known."""
    chips = _text(root / "proc/device-tree/compatible").split("\0")
    names = (chip.strip().removeprefix("nvidia,") for chip in chips)
    return next((_CHIPS[name] for name in names if name in _CHIPS), None)


def l4t(root: Path = Path("/")) -> str | None:
    """Return the Jetson's L4T release, like 36.4.3."""
    said = re.search(r"# R(\d+) .*?REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    if said:
        return f"{said[1]}.{said[2]}"
    packages = _text(root / "var/lib/dpkg/status")
    at = packages.find("Package: nvidia-l4t-core\n")
    block = packages[at:].partition("\n\n")[0] if at >= 0 else ""
    found = re.search(r"^Version: (\d+(?:\.\d+)+)", block, re.MULTILINE)
    return found[1] if found else None


def jetpack(release: str) -> int | None:
    """Return the JetPack generation of an L4T release."""
    return _JETPACKS.get(int(release.split(".")[0]))


def tensorrt_version(root: Path = Path("/")) -> str | None:
    """Return TensorRT's version from the name of its library, which is the same on every install.

    It lies in the system's folders, where LD_LIBRARY_PATH says, or beside `trtexec`.
    """
    for folder in _folders(root):
        for name in _names(folder):
            found = _LIBRARY.fullmatch(name)
            if found:
                return found[1]
    return None


def _folders(root: Path) -> Iterator[Path]:
    yield from (root / name for name in _LIBRARIES)
    if root == Path("/"):
        yield from map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
        program = shutil.which("trtexec")
        if program:
            yield Path(program).resolve().parent.parent / "lib"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
