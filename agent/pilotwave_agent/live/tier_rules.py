"""What the agent tells applications of bigger models: one file in the folder `live`, its alone.

The agent writes it at its start from `[escalate]` of its settings, and removes it where the owner
does not allow any input to leave.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

from pilotwave_agent.settings.escalate import NEVER, PIN, EscalateSettings
from pilotwave_protocol.escalate import CLOUD, SITE

_SCHEMA = "pilotwave/tiers/1"
FILE = "tiers.json"


class Place(NamedTuple):
    """A model server, and the key that it has to show."""

    url: str
    pin: str


@dataclass(frozen=True)
class TierRules:
    """Where the owner allows inputs to go."""

    site: str
    pin: str
    cloud: str

    @staticmethod
    def of(settings: EscalateSettings) -> TierRules | None:
        """Return what the settings allow; None for nothing."""
        if not settings.allow:
            return None
        return TierRules(settings.site, settings.pin, settings.cloud)

    def place(self, tier: str) -> Place | None:
        """Return where a tier's model is served, if inputs may go there."""
        if tier == SITE and self.site:
            return Place(self.site, self.pin)
        if tier == CLOUD and self.cloud != NEVER:
            return Place(self.cloud, "")
        return None

    def to_bytes(self) -> bytes:
        """Write the file."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1).encode() + b"\n"


def parse_tier_rules(raw: bytes) -> TierRules | None:
    """Read the file; None where it is of a later agent. Raises `ValueError`, `TypeError`."""
    found = json.loads(raw)
    if not isinstance(found, dict) or found.pop("schema", None) != _SCHEMA:
        return None
    rules = TierRules(**found)
    if rules.pin and not PIN.fullmatch(rules.pin):
        raise ValueError("expected a pin of sha256")
    return rules
