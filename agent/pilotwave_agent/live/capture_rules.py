"""What the agent tells applications to capture: one file in the folder `live`, the agent's alone.

The agent writes it at its start from `[capture]` of its settings, and removes it where the owner
wants nothing captured. An application looks at it every few seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

_SCHEMA = "pilotwave/capture/1"
FILE = "capture.json"


@dataclass(frozen=True)
class CaptureRules:
    """Who this device is, whose key cases are sealed for, and the owner's rules and budgets."""

    fleet: str
    device: str
    public_key: str
    reader: str
    reasons: tuple[str, ...]
    below: float
    share: float
    max_case_bytes: int
    max_bytes: int
    max_bytes_per_day: int

    def to_bytes(self) -> bytes:
        """Write the file."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1).encode() + b"\n"


def parse_rules(raw: bytes) -> CaptureRules | None:
    """Read the file; None where it is of a later agent. Raises `ValueError`, `TypeError`."""
    found = json.loads(raw)
    if not isinstance(found, dict) or found.pop("schema", None) != _SCHEMA:
        return None
    return CaptureRules(**{**found, "reasons": tuple(found["reasons"])})
