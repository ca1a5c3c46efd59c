"""The delta format: a file that turns one blob into another. `docs/delta-format.md` defines it.

Here is what both ends agree on byte for byte: reading and applying, with the standard library and
zstd alone (NumPy makes it faster where it is installed). How a good delta is found is the
generator's business, in `pilotwave_deltas`. Nothing in a delta is believed: each length is checked
against what it may be, and the result counts only by its SHA-256.
"""

from __future__ import annotations

from pilotwave_protocol.delta.apply import Applier, apply_delta
from pilotwave_protocol.delta.header import HEADER_BYTES, Header, Mode

__all__ = ["HEADER_BYTES", "Applier", "Header", "Mode", "apply_delta"]
