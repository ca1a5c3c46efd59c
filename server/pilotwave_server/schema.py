"""Every table of the server, brought together for the migrations and the tests."""

from __future__ import annotations

import importlib
import importlib.util

from pilotwave_server.db import Base

SLICES = (
    "attention",
    "audit",
    "blobs",
    "deltas",
    "devices",
    "downloads",
    "groups",
    "idempotency",
    "operators",
    "registry",
    "rollouts",
    "telemetry",
    "webhooks",
)

for _slice in SLICES:
    _name = f"pilotwave_server.{_slice}"
    if importlib.util.find_spec(_name) and importlib.util.find_spec(f"{_name}.tables"):
        importlib.import_module(f"{_name}.tables")

metadata = Base.metadata
