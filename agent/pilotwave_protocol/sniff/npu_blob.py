"""Read a model that OpenVINO compiled for an Intel NPU, from what its NPU plugin writes around it.

Up to format 2 that stands at the end: format, OpenVINO's version, length of the compiled part, a
mark. From format 3 on the mark is at the beginning. Which NPU it is for, only the driver knows.
"""

from __future__ import annotations

import struct

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import Sniffed

_MARK = b"OVNPU"
_TAIL = struct.Struct("<Q5s")
_FORMAT = struct.Struct("<HH")  # minor, major
_OPENVINO = struct.Struct("<HHH")


def is_npu_blob(data: memoryview) -> bool:
    """Say whether OpenVINO's NPU plugin wrote this."""
    return bytes(data[:5]) == _MARK or bytes(data[-5:]) == _MARK


def read_npu_blob(data: memoryview) -> Sniffed:
    """Describe a compiled model from its bytes; raise BadModel if its parts do not fit."""
    at_end = bytes(data[-5:]) == _MARK
    if not at_end:
        return _blob(struct.unpack_from("<5xHH", data)[::-1] if len(data) >= 9 else (0, 0))
    if len(data) < _TAIL.size:
        raise BadModel("the compiled model is cut off")
    size, _ = _TAIL.unpack_from(data, len(data) - _TAIL.size)
    last = len(data) - _TAIL.size
    if size + _FORMAT.size > last:
        raise BadModel(f"it says that {size} bytes were compiled, which is more than there are")
    minor, major = _FORMAT.unpack_from(data, size)
    exact = major == 2 and size + _FORMAT.size + _OPENVINO.size <= last
    openvino = _OPENVINO.unpack_from(data, size + _FORMAT.size) if exact else None
    return _blob((major, minor), openvino)


def _blob(written: tuple[int, ...], openvino: tuple[int, ...] | None = None) -> Sniffed:
    version = ".".join(map(str, openvino)) if openvino else None
    details: dict[str, str | int] = {"blob_format": ".".join(map(str, written))}
    if version:
        details["openvino"] = version
    return Sniffed(
        format="openvino-npu-blob",
        runtime="openvino",
        # the plugin opens what the same OpenVINO wrote and nothing else
        runtime_version=f"=={version}" if version else None,
        accelerator="intel_npu",
        details=details,
    )
