"""Find what speeds inference up: by USB and PCI numbers, device nodes and drivers.

A fact `accelerator.<name>` is true where the hardware is there; whether its runtime is installed is
another fact. `root` stands in for `/`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

from pilotwave_agent.hardware.board import is_jetson
from pilotwave_agent.hardware.texts import names, text
from pilotwave_protocol.fields import Scalar

_USB = {
    ("1a6e", "089a"): "coral",  # before its first use
    ("18d1", "9302"): "coral",  # after it
    ("03e7", "2485"): "myriad",
    ("03e7", "f63b"): "myriad",
}
_PCI = {
    ("1ac1", "089a"): "coral",
    ("1e60", "2864"): "hailo",
    ("1e60", "45c4"): "hailo",
    ("1022", "1502"): "amd_npu",
    ("1022", "17f0"): "amd_npu",
}
# vendor and the beginning of the class: processing accelerators, display controllers
_PCI_CLASSES = {
    ("8086", "1200"): "intel_npu",
    ("8086", "0300"): "intel_gpu",
    ("8086", "0380"): "intel_gpu",
    ("10de", "0300"): "cuda",
    ("10de", "0302"): "cuda",
}
_NODES = {
    "apex_*": "coral",
    "hailo[0-9]*": "hailo",
    "rknpu": "rknpu",
    "ethosu*": "ethosu",
    "fastrpc-cdsp": "hexagon",
}


def accelerator_facts(root: Path) -> dict[str, Scalar | None]:
    """Return `accelerator.<name>: true` for each that is there."""
    found = {*_usb(root), *_pci(root), *_nodes(root)}
    if is_jetson(root) or names(root / "proc/driver/nvidia/gpus"):
        found.add("cuda")
    return {f"accelerator.{name}": True for name in sorted(found)}


def _usb(root: Path) -> Iterator[str]:
    top = root / "sys/bus/usb/devices"
    for name in names(top):
        known = _USB.get((_hex(top / name / "idVendor"), _hex(top / name / "idProduct")))
        if known:
            yield known


def _pci(root: Path) -> Iterator[str]:
    top = root / "sys/bus/pci/devices"
    for name in names(top):
        vendor = _hex(top / name / "vendor")
        known = _PCI.get((vendor, _hex(top / name / "device")))
        known = known or _PCI_CLASSES.get((vendor, _hex(top / name / "class")[:4]))
        if known:
            yield known


def _nodes(root: Path) -> Iterator[str]:
    there = names(root / "dev")
    for pattern, accelerator in _NODES.items():
        if fnmatch.filter(there, pattern):
            yield accelerator
    for name in names(root / "sys/class/accel"):
        if _hex(root / "sys/class/accel" / name / "device/vendor") == "8086":
            yield "intel_npu"


def _hex(path: Path) -> str:
    return (text(path) or "").lower().removeprefix("0x")
