"""What the agent tells applications to capture: one file in the folder `live`, the agent's alone.

Beside it lies which models' inputs drift now (`drift.json`), where drift is a reason to capture.

The agent writes the first at its start from `[capture]` of its settings, and removes it where the
owner wants nothing captured. An application looks at both every few seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_SCHEMA = "pilotwave/capture/1"
_DRIFT_SCHEMA = "pilotwave/drifting/1"
FILE = "capture.json"
DRIFT_FILE = "drift.json"


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


def drifting_bytes(names: Mapping[str, str]) -> bytes:
    """Write which version folder of each model meets inputs that drift."""
    return json.dumps({"schema": _DRIFT_SCHEMA, "models": dict(names)}).encode() + b"\n"


def parse_drifting(raw: bytes) -> dict[str, str]:
    """Read what `drifting_bytes` wrote; nothing of a later agent's. Raises `ValueError`,
    `TypeError`, `KeyError`."""
    found = json.loads(raw)
    return dict(found["models"]) if found["schema"] == _DRIFT_SCHEMA else {}
