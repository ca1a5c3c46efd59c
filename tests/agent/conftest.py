"""The registry that these tests talk to, and a device enrolled at it."""

from __future__ import annotations

from tests.peers.device import device, registry

__all__ = ["device", "registry"]
