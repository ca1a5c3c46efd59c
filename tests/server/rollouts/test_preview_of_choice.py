"""A preview shows the variants that devices would get by what their classes have measured."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.rollouts.assignments.fitting import MOST_CHOSEN
from tests.server.device_api.peer import ONNX
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.choosing import choosing

__all__ = ["choosing"]


def preview(fleet: Fleet, **policy: Any) -> tuple[dict[str, str], dict[str, int]]:
    """By device and in all, which variants a rollout would bring."""
    document = {"name": "p", "waves": [{"percent": 100}], **policy}
    wish = {"group": "cams", "model": "detector", "version": "2.0.0", "document": document}
    answer = fleet.operator.post("/api/v1/rollouts/preview", json=wish)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return {d["device"]: d["variant"] for d in found["items"]}, found["variants"]


@only_sqlite
def test_a_preview_shows_what_the_choice_would_give(choosing: Fleet) -> None:
    cam = choosing.device("new", line="a")
    assert cam.check_in(facts={**cam.facts, "cpu.model": "another"}).status_code == 200
    devices, counts = preview(choosing, choose={"minimise": "latency"})
    # the class of the last has not measured yet: the publisher's order
    assert devices == {**{f"cam-{n}": "tiny" for n in (1, 2, 3, 9)}, "new": "fp32"}
    assert counts == {"tiny": 4, "fp32": 1}
    devices, counts = preview(choosing)
    assert set(devices.values()) == {"fp32"}
    assert counts == {"fp32": 5}


@only_sqlite
def test_a_large_group_is_counted_by_the_publishers_order(choosing: Fleet) -> None:
    told = {"state": "enrolled", "revision": 1, "labels": {"line": "a"}, "facts": ONNX}
    at = choosing.registry.clock()
    with choosing.context.db.write() as session:
        rows = [
            {"name": f"x-{n}", "public_key": f"{n:064x}", "created_at": at, **told}
            for n in range(MOST_CHOSEN)
        ]
        session.execute(insert(DeviceRow), rows)
    devices, counts = preview(choosing, choose={"minimise": "latency"})
    assert set(devices.values()) == {"tiny"}
    assert counts == {"fp32": MOST_CHOSEN + 4}
