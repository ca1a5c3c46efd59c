from __future__ import annotations

from tests.server.fleet_fixtures import fleet
from tests.server.learning.test_rounds import published

__all__ = ["fleet", "published"]
