"""Read what the machine is: board, processor, memory, Jetson release. `root` stands in for `/`."""

from __future__ import annotations

import re
from pathlib import Path

from pilotwave_agent.hardware.texts import text
from pilotwave_protocol.fields import Scalar

# the instructions that decide which build of a model is worth its while
_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "avx512_bf16": "bf16",
    "amx_bf16": "bf16",
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "i8mm": "i8mm",
    "sve": "sve",
    "bf16": "bf16",
}
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm")
# the chip of a Jetson: (family, GPU architecture)
_TEGRAS = {
    "210": ("nano", "53"),
    "186": ("tx2", "62"),
    "194": ("xavier", "72"),
    "234": ("orin", "87"),
    "264": ("thor", "110"),
}
_JETPACKS = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7, 39: 7}  # by the major number of L4T
_L4T = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
_L4T_PACKAGE = re.compile(r"Package: nvidia-l4t-core\n(?:.+\n)*?Version: (\d+)\.([\d.]+)")


def cpu_flags(root: Path) -> dict[str, Scalar | None]:
    """Return `cpu.<feature>` for what this processor has of the features that matter."""
    for line in (text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return {f"cpu.{_FLAGS[word]}": True for word in value.split() if word in _FLAGS}
    return {}


def cpu_model(root: Path) -> str | None:
    """Return the processor's name; on ARM, which tells none, its maker and part: `0x41:0xd0b`."""
    found: dict[str, str] = {}
    for line in (text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()  # of cores that differ, the last: the fast ones
    arm = [found[key] for key in ("CPU implementer", "CPU part") if key in found]
    return found.get("model name") or ":".join(arm) or None


def int8_words(root: Path) -> str:
    """Say which processor this is and how it multiplies 8-bit numbers, which decides what it makes
    of a quantised model."""
    flags = cpu_flags(root)
    has = [name for name in _INT8 if flags.get(f"cpu.{name}")]
    return f"{cpu_model(root) or 'unknown'} with {', '.join(has) or 'no int8 dot products'}"


def hardware(root: Path) -> str | None:
    """Return the board's name, or at least the processor's."""
    board = text(root / "proc/device-tree/model") or text(root / "sys/class/dmi/id/product_name")
    if board:
        return board
    for line in (text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware"):
            return value.strip()
    return None


def memory_mb(root: Path) -> int | None:
    """Return the machine's memory or the control group's limit, whichever is less, in MiB."""
    total = None
    for line in (text(root / "proc/meminfo") or "").splitlines():
        words = line.split()
        if words[:1] == ["MemTotal:"] and words[1:2] and words[1].isdecimal():
            total = int(words[1]) // 1024
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = text(root / name) or ""
        if limit.isdecimal() and total is not None:
            total = min(total, int(limit) >> 20)
    return total


def is_jetson(root: Path) -> bool:
    """Say whether the board's chip is one of NVIDIA's Tegra line."""
    return _tegra(root) is not None


def _tegra(root: Path) -> str | None:
    said = text(root / "proc/device-tree/compatible") or ""
    found = re.search(r"nvidia,tegra(\d+)", said)
    return found[1] if found else None


def jetson_facts(root: Path) -> dict[str, Scalar | None]:
    """Return `jetson.*`: family, GPU architecture, L4T release, JetPack."""
    chip = _tegra(root)
    if chip is None:
        return {}
    family, sm = _TEGRAS.get(chip, (f"tegra{chip}", None))
    l4t = _l4t(root)
    major = int(l4t.partition(".")[0]) if l4t else 0
    return {
        "jetson": family,
        "jetson.sm": sm,
        "jetson.l4t": l4t,
        "jetson.jetpack": _JETPACKS.get(major),
    }


def _l4t(root: Path) -> str | None:
    for path, pattern in (
        ("etc/nv_tegra_release", _L4T),
        ("var/lib/dpkg/status", _L4T_PACKAGE),
    ):
        found = pattern.search(text(root / path) or "")
        if found:
            return f"{found[1]}.{found[2]}"
    return None
