"""Find what speeds inference up: by USB and PCI numbers, device nodes and drivers.

A fact `accelerator.<name>` is true where the hardware is there, or one that runs the files of that
chip; whether its runtime is installed is another fact. `root` stands in for `/`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from pilotwave_agent.hardware.board import is_jetson
from pilotwave_agent.hardware.texts import names, text
from pilotwave_protocol.accelerators import SAME, family
from pilotwave_protocol.fields import Scalar

_USB = {
    ("1a6e", "089a"): "coral",  # before its first use
    ("18d1", "9302"): "coral",  # after it
    ("03e7", "2485"): "myriad",
    ("03e7", "f63b"): "myriad",
}
_PCI = {
    ("1ac1", "089a"): "coral",
    ("1022", "1502"): "amd_npu",
    ("1022", "17f0"): "amd_npu",
}
_HAILO = "1e60"
# by PCI number, the chips whose files run there (HailoRT's device_base.cpp); Hailo-8 and Hailo-8L
# share theirs, and no file of the system tells which of them it is
_HAILOS = {
    "2864": ("hailo8", "hailo8l"),
    "45c4": ("hailo10h", "hailo15h", "hailo15m"),
    "43a2": ("hailo15l",),
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
    "h1x-[0-9]*": "hailo",
    "rknpu": "rknpu",
    "ethosu*": "ethosu",
    "fastrpc-cdsp*": "hexagon",
}
# by the driver of a compute device (/sys/class/accel), or of one on the board
_DRIVERS = {"intel_vpu": "intel_npu", "rocket": "rknpu", "ethosu": "ethosu"}
_ROCKCHIP = re.compile(r"rockchip,((?:rk|rv)\w+)")
_SYSTEMS = {"fsl,imx93": "ethos-u65-256"}
"""Systems on a chip with an Ethos-U that have it in one size."""


def accelerator_facts(root: Path) -> dict[str, Scalar | None]:
    """Return `accelerator.<name>: true` for each that is there."""
    found = {*_usb(root), *_pci(root), *_nodes(root), *_drivers(root)}
    if is_jetson(root) or names(root / "proc/driver/nvidia/gpus"):
        found.add("cuda")
    found |= set(_of_the_board(root, found))
    found |= {family(name) for name in found}
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
        vendor, device = _hex(top / name / "vendor"), _hex(top / name / "device")
        if vendor == _HAILO:
            yield from ("hailo", *_HAILOS.get(device, ()))
        known = _PCI.get((vendor, device))
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


def _drivers(root: Path) -> Iterator[str]:
    top = root / "sys/class/accel"
    for name in names(top):
        said = text(top / name / "device/uevent") or ""
        driver = re.search(r"^DRIVER=(\w+)$", said, re.M)
        if driver and driver[1] in _DRIVERS:
            yield _DRIVERS[driver[1]]
    # Rockchip's own kernel: the driver lists what it drives, as fdab0000.npu
    if any("npu" in name for name in names(root / "sys/bus/platform/drivers/RKNPU")):
        yield "rknpu"
    for name in names(root / "sys/class/remoteproc"):
        if text(root / "sys/class/remoteproc" / name / "name") == "cdsp":
            yield "hexagon"


def _of_the_board(root: Path, found: Collection[str]) -> Iterator[str]:
    """Name the chip whose accelerator was found, from the board's device tree."""
    said = text(root / "proc/device-tree/compatible") or ""
    if "rknpu" in found:
        for chip in _ROCKCHIP.findall(said):
            yield from (chip, SAME.get(chip, chip))
    if "ethosu" in found:
        yield from (_SYSTEMS[name] for name in said.split("\0") if name in _SYSTEMS)


def _hex(path: Path) -> str:
    return (text(path) or "").lower().removeprefix("0x")
