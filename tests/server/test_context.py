"""What slices keep for each other in a running server."""

from __future__ import annotations

import pytest

from pilotwave_server.api_limits import ApiLimits
from pilotwave_server.clock import Clock
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.metrics import Metrics
from pilotwave_server.operators.sessions import PersonSessions
from pilotwave_server.pacing import Pacing
from pilotwave_server.settings import Settings
from tests.server.fleet_fixtures import only_sqlite


@pytest.fixture
def bare(settings: Settings, db: Database, clock: Clock) -> Context:
    """A server without any slice."""
    return Context(
        settings, db, FolderKeys(settings.keys_dir), clock, Metrics(), Pacing(), ApiLimits(0)
    )


@only_sqlite
def test_a_part_is_found_by_its_class(bare: Context, db: Database) -> None:
    people = PersonSessions(db)
    bare.put(people)
    assert bare.get(PersonSessions) is people


@only_sqlite
def test_a_part_whose_slice_is_installed_later_is_named(bare: Context) -> None:
    with pytest.raises(LookupError, match="no FleetState here"):
        bare.get(FleetState)
