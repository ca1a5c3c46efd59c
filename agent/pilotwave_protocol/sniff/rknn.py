"""Read a Rockchip model (`.rknn`): which of their chips it was compiled for, and by which toolkit.

Rockchip documents no layout. This one is what open readers of the format agree on: a mark, a
version, the length of the compiled part, that part, and JSON text that describes it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from pilotwave_protocol.accelerators import SAME
from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import Sniffed

RKNN, ENCRYPTED = b"RKNN", b"CYPTRKNN"
_HEADER = struct.Struct("<8xQQ")
_SIZE = struct.Struct("<Q")
_SHORT, _LONG = (0x0001, 0x1001), (0x0002, 0x1002, 0x0003, 0x1003, 0x0004, 0x1004, 0x0005, 0x0006)
_GAP = 40
_MAX_JSON = 16 << 20
_MAX_CHIPS = 32
_FAMILY = "rknpu"


def read_rknn(data: memoryview) -> Sniffed:
    """Describe a model from its bytes; raise BadModel if it is cut off or its JSON is damaged."""
    if bytes(data[:8]) == ENCRYPTED:
        return Sniffed("rknn", None, accelerator=_FAMILY, details={"encrypted": "yes"})
    if len(data) < _HEADER.size:
        raise BadModel("the Rockchip model is cut off in its header")
    version, size = _HEADER.unpack_from(data)
    if version not in _SHORT + _LONG:  # a later layout, which nobody has told us of
        return Sniffed("rknn", None, accelerator=_FAMILY, details={"container": version})
    gap = _GAP if size and version in _LONG else 0
    said = _described(data, _HEADER.size + gap + size)
    chips = _chips(said.get("target_platform"))
    words = {
        "chips": ", ".join(chips),
        "toolkit": _text(said.get("version")),
        "producer": _text(said.get("ori_network_platform") or said.get("network_platform")),
    }
    same = {SAME.get(chip, chip) for chip in chips}
    return Sniffed(
        format="rknn",
        runtime=None,
        accelerator=same.pop() if len(same) == 1 else _FAMILY,
        details={"container": version, **{name: word for name, word in words.items() if word}},
    )


def _described(data: memoryview, at: int) -> dict[str, Any]:
    if at + _SIZE.size > len(data):
        raise BadModel("the Rockchip model is cut off before its description")
    (size,) = _SIZE.unpack_from(data, at)
    start = at + _SIZE.size
    if size > _MAX_JSON or start + size > len(data):
        raise BadModel(f"its description of {size} bytes is too long or cut off")
    try:
        said = json.loads(bytes(data[start : start + size]).rstrip(b"\0"))
    except (ValueError, RecursionError) as e:
        raise BadModel("its description is no JSON that can be read") from e
    if not isinstance(said, dict):
        raise BadModel("its description is no JSON object")
    return said


def _chips(found: object) -> list[str]:
    named = found if isinstance(found, list) else [found]
    words = (_text(word).lower() for word in named[:_MAX_CHIPS])
    return [word for word in words if word.startswith(("rk", "rv")) and word.isalnum()]


def _text(found: object) -> str:
    return found[:64] if isinstance(found, str) else ""
