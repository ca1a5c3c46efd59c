"""Read which Ethos-U a TensorFlow Lite file was compiled for by Arm's compiler, Vela.

Vela puts what the chip runs into one custom operator, whose first input is a stream for its driver
(ethosu_driver.c): a mark, then actions, the first of which says for which chip the rest is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

OPERATOR = "ethos-u"
FAMILY = "ethosu"
HEAD = 64
"""Bytes of a stream that are enough to find it."""
_MARK = b"COP1"
_CONFIG, _NOP = 1, 5
_PRODUCTS = {0: "u55", 1: "u65", 2: "u85"}


def chip(streams: Iterable[bytes]) -> str:
    """Return the chip of the beginnings of some streams, as `ethos-u65-256`; the family where
    they do not say or differ."""
    found = {_chip(stream) for stream in streams}
    return found.pop() if len(found) == 1 else FAMILY


def _chip(stream: bytes) -> str:
    if stream[:4] != _MARK:
        return FAMILY
    words = struct.unpack_from(f"<{len(stream) // 4}I", stream)[1:]
    actions = iter(words)
    for action in actions:
        if action & 0xFF == _CONFIG:
            config = next(actions, 0)
            product, macs = _PRODUCTS.get(config >> 28), config & 0xF
            return f"ethos-{product}-{1 << macs}" if product and macs else FAMILY
        if action & 0xFF != _NOP:
            break
    return FAMILY
