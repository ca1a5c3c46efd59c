from __future__ import annotations

from tests.server.fleet_fixtures import fleet, published

__all__ = ["fleet", "published"]
