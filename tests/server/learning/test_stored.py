"""Updates are read from the database some at a time, in order, or not at all."""

from __future__ import annotations

import tracemalloc

import pytest
from sqlalchemy import select, update

from pilotwave_server.db import Database
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.learning.stored import BLOCK_BYTES, StoredNumbers, UpdatesGone
from pilotwave_server.learning.tables import RoundRow, UpdateRow
from tests.conftest import START
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet
from tests.server.learning.test_rounds import cams as cams
from tests.server.learning.test_rounds import published as published
from tests.server.learning.test_rounds import start

pytestmark = pytest.mark.long
COUNT = 40


def keep(db: Database, size: int) -> list[int]:
    """Put an update of each of some new devices into the round; return their row numbers."""
    with db.write() as session:
        number, rows = session.scalars(select(RoundRow.id)).one(), list[UpdateRow]()
        for n in range(COUNT):
            name = f"board-{n:02}"
            device = DeviceRow(
                name=name, public_key=f"{n:064x}", state="enrolled", revision=1, created_at=START
            )
            session.add(device)
            session.flush()
            told = {"device": name, "examples": 20, "sha256": "a" * 64, "size": size}
            rows.append(UpdateRow(
                round_id=number, device_id=device.id, **told, received_at=START,
                content=bytes([n]) * size,
            ))  # fmt: skip
            session.add(rows[-1])
        session.flush()
        return [row.id for row in rows]


@pytest.mark.parametrize("size", [1000, BLOCK_BYTES // 3, BLOCK_BYTES * 2], ids=["", "3", "1"])
def test_they_come_in_their_order_and_memory_is_that_of_a_block(
    fleet: Fleet, cams: list[SimulatedDevice], size: int
) -> None:
    db = fleet.context.db
    assert start(fleet).status_code == 201
    ids = keep(db, size)[::-1]
    tracemalloc.start()
    try:
        stored = StoredNumbers(db, ids, size)
        for _ in range(2):
            assert [raw[0] for raw in stored] == list(range(COUNT))[::-1]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * max(BLOCK_BYTES, size)
    assert len(stored) == COUNT
    assert stored[7][0] == COUNT - 8


def test_what_went_meanwhile_is_said(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    db = fleet.context.db
    assert start(fleet).status_code == 201
    ids = keep(db, 1000)
    stored = StoredNumbers(db, ids, BLOCK_BYTES // 3)
    assert stored[0] == bytes(1000)
    with db.write() as session:
        session.execute(update(UpdateRow).where(UpdateRow.id == ids[5]).values(content=None))
    assert stored[2] == bytes([2]) * 1000
    with pytest.raises(UpdatesGone, match="1 of 3 updates"):
        stored[4]
