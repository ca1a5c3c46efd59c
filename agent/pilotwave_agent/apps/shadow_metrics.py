"""Which numbers belong to a version in shadow: their names are kept for it alone."""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_protocol.shadow import RESERVED_PREFIX, SHADOW_FILE, SHADOW_METRICS, SHADOW_SCHEMA


def version_in_shadow(live: Path, model: str) -> str | None:
    """Return the version that applications try for a model, as the agent itself wrote it; None:
    there is none."""
    found = heartbeats.load(live / model / SHADOW_FILE, ())
    if not isinstance(found, dict) or found.get("schema") != SHADOW_SCHEMA:
        return None
    version = found.get("version")
    return version if isinstance(version, str) else None


def why_refused(metric: str, version: str, tried: str | None) -> str | None:
    """Say why numbers of a metric do not count for a version, while `tried` is in shadow; None:
    they count."""
    if not metric.startswith(RESERVED_PREFIX):
        return None
    if metric not in SHADOW_METRICS:
        return f"{metric}: names that begin with {RESERVED_PREFIX} are reserved; choose another"
    if version != tried:
        return f"{metric} of {version}: that version is not in shadow here"
    return None
