"""What a publisher takes back while an experiment goes on."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.learning.dropped import stop_dropped
from pilotwave_server.learning.finish import finish_all
from pilotwave_server.learning.tables import UpdateRow
from pilotwave_server.registry.trust import TrustStore
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet
from tests.server.learning.test_rounds import (
    cams,
    plan_of,
    publish_plan,
    published,
    send,
    start,
    the_experiment,
    update,
    waiting,
)

__all__ = ["cams", "published"]
pytestmark = pytest.mark.long


def test_an_experiment_with_a_plan_that_was_dropped_is_stopped_and_what_came_deleted(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    db, now = fleet.context.db, fleet.context.clock()
    assert start(fleet).status_code == 201
    for seed, cam in enumerate(cams[:3]):
        assert send(cam, update(fleet, cam, seed)).status_code == 204
    stop_dropped(db, now=now)
    assert the_experiment(fleet)["state"] == "running"

    publish_plan(fleet.registry, plan_of(fleet.registry, plan="winter"))
    fleet.context.get(TrustStore).committed()
    stop_dropped(db, now=now)
    found = the_experiment(fleet)
    assert (found["state"], found["detail"]) == (
        "stopped",
        "the publisher of detector has dropped plan autumn-1",
    )
    assert waiting(cams[3]) == []
    assert code_of(send(cams[3], update(fleet, cams[3], 3))) == (409, "round_over")
    with db.read() as session:
        assert {row.content for row in session.scalars(select(UpdateRow))} == {None}
    # nothing comes of it later, and another look changes nothing
    finish_all(db, fleet.context.get(BlobStore), now=now)
    stop_dropped(db, now=now)
    assert the_experiment(fleet) == found
