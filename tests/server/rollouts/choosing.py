"""A group whose variants are chosen by what three devices of its one class measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pilotwave_protocol.figures import VariantFigures
from pilotwave_server.db import touch_fleet
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.assignments.baselines import set_baseline
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.choice.classes import class_of
from pilotwave_server.rollouts.choice.store import Answer, Wish, ask, take
from pilotwave_server.rollouts.policies.choose import Choose
from tests.server.fleet_fixtures import Fleet
from tests.server.rollouts.worlds_db import AUTHOR

NAMES = ("fp32", "int8", "tiny")
FOUND = {"fp32": 4.0, "int8": 2.0, "tiny": 1.0}


@pytest.fixture
def choosing(fleet: Fleet) -> Fleet:
    """Group `cams` is to run 2.0.0, which has three variants, by latency; cam-1 to cam-3 of its
    class measured the last to be best, and cam-9 was not asked."""
    made = fleet.registry.manifest("detector", "2.0.0")
    variants = tuple(replace(made.variants[0], name=name) for name in NAMES)
    manifest = replace(made, variants=variants)
    fleet.registry.hand_in("detector", fleet.registry.signed_with_version(manifest), manifest)
    fleet.context.get(FleetState).refresh()
    fleet.group("cams", "line=a")
    given = {"group": "cams", "model": "detector", "version": "2.0.0", "actor": AUTHOR}
    now = fleet.registry.clock()
    with fleet.context.db.write() as session:
        snapshot = read_snapshot(session, RememberedSnapshot())
        set_baseline(session, snapshot, **given, now=now, choose=Choose("latency"))  # type: ignore[arg-type]  # by name
    for n in (1, 2, 3):
        fleet.device(f"cam-{n}", line="a")
    with fleet.context.db.write() as session:
        release = read_snapshot(session, RememberedSnapshot()).versions["detector", "2.0.0"]
        for device in session.query(DeviceRow):
            key = device.id, class_of(device.facts), release.sha256
            ask(session, [Wish(*key, NAMES)], now=now)
            answers = [Answer(*key, n, VariantFigures(p05_ms=ms)) for n, ms in FOUND.items()]
            take(session, answers, now=now)
        touch_fleet(session)
    fleet.device("cam-9", line="a")
    fleet.context.get(FleetState).refresh()
    return fleet
