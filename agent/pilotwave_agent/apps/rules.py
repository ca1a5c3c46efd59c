"""Tell applications what the device's owner allows: small files in the folder `live`, which none
but the agent writes."""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.live.tier_rules import TierRules
from pilotwave_agent.settings.config import Config


def write_rules(config: Config, disk: Disk, path: Path, raw: bytes | None) -> None:
    """Write a file that applications look at, or remove it. May raise `OSError`."""
    if raw is not None:
        heartbeats.prepare(path.parent, "", config.apps_group)
        disk.write_atomic(path, raw, mode=0o644)
    elif disk.size(path) is not None:
        disk.unlink(path)
        disk.sync_dir(path.parent)


def tell_tiers(config: Config, layout: Layout, disk: Disk) -> None:
    """Say where inputs may go for a bigger model's answer. May raise `OSError`."""
    rules = TierRules.of(config.escalate)
    write_rules(config, disk, layout.tier_rules, rules.to_bytes() if rules else None)
