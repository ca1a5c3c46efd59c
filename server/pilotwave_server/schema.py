"""Every table of the server, brought together for the migrations and the tests."""

from __future__ import annotations

import importlib

from pilotwave_server.db import Base

SLICES = (
    "attention",
    "audit",
    "blobs",
    "captures",
    "deltas",
    "devices",
    "diagnostics",
    "downloads",
    "groups",
    "hosts",
    "idempotency",
    "keystore",
    "learning",
    "operators",
    "registry",
    "rollouts",
    "telemetry",
    "webhooks",
)

for _module in (
    *(f"{slice_}.tables" for slice_ in SLICES),
    "devices.report_tables",
    "learning.masked.tables",
):
    importlib.import_module(f"pilotwave_server.{_module}")

metadata = Base.metadata
