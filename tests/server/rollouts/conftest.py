from __future__ import annotations

import pytest

from pilotwave_server.settings import Settings
from tests.server.fleet_fixtures import fleet, published
from tests.server.registry.registry import Registry
from tests.server.rollouts.worlds_db import World

__all__ = ["fleet", "published"]


@pytest.fixture
def world(published: Registry) -> World:
    """Ten devices in the group `cams`, and three versions of `detector`."""
    made = World(published)
    made.devices(10)
    made.group()
    return made


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A budget of check-ins that holds no device back: here they report without a pause."""
    return settings.model_copy(update={"check_ins_per_minute": 6000})
