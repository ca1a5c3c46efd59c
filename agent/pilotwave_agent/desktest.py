"""Try a variant's files where they are published, as a device would: `pilotwave-agent selftest`.

The manifest comes on stdin; one JSON object says how it went: `figures` in words, or `reason` and
`sentence`. No data folder is needed, and nothing is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

from pilotwave_agent.selftest import TestLimits, run_selftest
from pilotwave_protocol.errors import PilotwaveError, RefusedError
from pilotwave_protocol.manifest import parse_manifest


class NoSuchVariant(PilotwaveError):
    """The manifest does not have it."""


def try_files(raw: bytes, name: str, folder: Path, timeout_s: float) -> str:
    """Return the JSON text of how a variant's self-test went. Raises `PilotwaveError`, `OSError`"""
    variant = parse_manifest(raw).variant(name)
    if variant is None:
        raise NoSuchVariant(f"the manifest on stdin has no variant {ascii(name)[:60]}")
    limits = TestLimits(timeout_s=timeout_s, memory_mb=0)
    try:
        figures = run_selftest(folder.absolute(), variant, limits)
    except RefusedError as no:
        return json.dumps({"ok": False, "reason": str(no.reason), "sentence": str(no)})
    return json.dumps({"ok": True, "tried": figures.tried, "figures": str(figures)})
