"""Read a Hailo executable (`.hef`): the chip that it was compiled for, and by which compiler.

The layout is HailoRT's (hef_internal.hpp, hef.proto): a header in network byte order, a protocol
buffer, and from version 1 on the weights behind it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from pilotwave_protocol.sniff import protobuf
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import Sniffed

MARK = b"\x01HEF"
_COMMON = struct.Struct(">4sII")
_CHIPS = {
    0: "hailo8", 1: "hailo8", 2: "hailo8", 3: "hailo8l", 4: "hailo15m", 5: "hailo10h",
    101: "hailo8", 103: "hailo15h",
}  # fmt: skip
_FAMILY = "hailo"
_HEADER, _GROUPS = 1, 2
_CHIP, _SDK = 1, 3
_MAX_NAMES = 32


def read_hailo(data: memoryview) -> Sniffed:
    """Describe an executable from its bytes; raise BadModel if they are not one."""
    version, message = _message(data)
    chip, sdk = 0, ""  # a protocol buffer leaves out what is 0: Hailo-8
    networks: list[str] = []
    headers = 0
    for f in protobuf.fields(message):
        if f.tag == _HEADER and f.wire == protobuf.LEN:
            chip, sdk = _described(f.data)
            headers += 1
        elif f.tag == _GROUPS and f.wire == protobuf.LEN and len(networks) < _MAX_NAMES:
            networks.append(_name(f.data))
    if headers != 1:
        raise BadModel(f"the Hailo executable says {headers} times what it is for; expected once")
    words: dict[str, str | int] = {
        "header_version": version,
        "compiler": sdk,
        "networks": ", ".join(filter(None, networks)),
        "chip": chip if chip not in _CHIPS else "",
    }
    return Sniffed(
        format="hailo-hef",
        runtime=None,
        accelerator=_CHIPS.get(chip, _FAMILY),
        details={name: word for name, word in words.items() if word != ""},
    )


@dataclass(frozen=True)
class _Layout:
    """What follows the first three fields of a header; `sizes` are those of its fields that say
    how many bytes lie behind the protocol buffer."""

    rest: struct.Struct
    sizes: tuple[int, ...]


_LAYOUTS = {
    0: _Layout(struct.Struct(">I16s"), ()),
    1: _Layout(struct.Struct(">IQI"), (1,)),
    2: _Layout(struct.Struct(">QQQQ"), (1,)),
    3: _Layout(struct.Struct(">QQIQQQ"), (1, 3)),
}


def _message(data: memoryview) -> tuple[int, memoryview]:
    """Return the header's version and the protocol buffer, whose length has to be right."""
    try:
        _, version, size = _COMMON.unpack_from(data)
        layout = _LAYOUTS.get(version)
        if layout is None:
            raise BadModel(f"its header has version {version}; 0 to {max(_LAYOUTS)} are known")
        rest = layout.rest.unpack_from(data, _COMMON.size)
    except struct.error as e:
        raise BadModel("the Hailo executable is cut off in its header") from e
    start = _COMMON.size + layout.rest.size
    expected = start + size + sum(rest[i] for i in layout.sizes)
    if len(data) != expected:
        raise BadModel(f"its header says {expected} bytes; there are {len(data)}: it is cut off")
    message = data[start : start + size]
    if version == 0 and hashlib.md5(message, usedforsecurity=False).digest() != rest[1]:
        raise BadModel("its checksum is not that of its content: it is damaged")
    return version, message


def _described(header: memoryview) -> tuple[int, str]:
    chip, sdk = 0, ""
    for f in protobuf.fields(header):
        if f.tag == _CHIP:
            chip = f.number
        elif f.tag == _SDK:
            sdk = protobuf.text(f.data, 64)
    return chip, sdk


def _name(group: memoryview) -> str:
    """Return a network's name, which lies in the group (10) or in its metadata (1, there 1)."""
    for f in protobuf.fields(group):
        if f.tag == 10 and f.wire == protobuf.LEN:
            return protobuf.text(f.data, 256)
        if f.tag == 1 and f.wire == protobuf.LEN:
            names = (m for m in protobuf.fields(f.data) if m.tag == 1)
            return next((protobuf.text(m.data, 256) for m in names), "")
    return ""
