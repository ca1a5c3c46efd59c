"""What was sent is counted by device, version and rollout, and is what a proxy between saw."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.deltas.worker import DeltaWorker
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.downloads.counting import Counting, For
from pilotwave_server.downloads.sites import SiteLimit, read_limits
from pilotwave_server.fleet.state import FleetState
from tests.deltas.pairs import tuned, weights
from tests.server.device_api.peer import SimulatedDevice, report
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.registry import onnx

OLD = onnx("old", weights=weights(60_000, 1, "float16").tobytes())
NEW = onnx("new", weights=tuned(weights(60_000, 1, "float16"), 2, 1e-4).tobytes())
OLD_SHA, NEW_SHA = sha256_hex(OLD), sha256_hex(NEW)
BIG = onnx("big", weights=random.Random(1).randbytes(24_000_000))


def get(device: SimulatedDevice, path: str, **headers: str) -> httpx.Response:
    headers["Authorization"] = f"Bearer {device.token}"
    return device.http.get(path, headers=headers)


def sums(fleet: Fleet, **query: str) -> list[dict[str, Any]]:
    """What the API says, after what was counted so far is written."""
    wait_for(lambda: fleet.context.get(Admission).queue.running == 0)
    fleet.context.get(Admission).counting.flush()
    answer = fleet.operator.get("/api/v1/bytes", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


@pytest.fixture
def cams(fleet: Fleet) -> list[SimulatedDevice]:
    """Two devices at two sites that run 2.0.0, which their group was told to."""
    fleet.registry.publish("detector", "2.0.0", files={"model.onnx": OLD})
    fleet.registry.publish("detector", "2.1.0", files={"model.onnx": NEW})
    fleet.group("all", "*")
    fleet.assign("all", "2.0.0")
    cams = [fleet.device("cam-1", site="berlin"), fleet.device("cam-2", site="oslo")]
    for cam in cams:
        assert get(cam, f"/blobs/{OLD_SHA}").content == OLD
        cam.check_in(report("2.0.0"))
    return cams


def test_bytes_are_counted_by_device_version_and_site(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    part = get(cams[0], f"/blobs/{OLD_SHA}", Range="bytes=100-599")
    assert len(part.content) == 500
    assert get(cams[0], f"/blobs/{OLD_SHA}", **{"If-None-Match": f'"{OLD_SHA}"'}).status_code == 304
    (version,) = sums(fleet)
    assert (version["model"], version["version"]) == ("detector", "2.0.0")
    assert (version["sent"], version["devices"]) == (2 * len(OLD) + 500, 2)
    assert (version["sent_delta"], version["saved"]) == (0, 0)
    by_device = {row["device"]: row["sent"] for row in sums(fleet, by="device")}
    assert by_device == {"cam-1": len(OLD) + 500, "cam-2": len(OLD)}
    by_site = {row["site"]: row["sent"] for row in sums(fleet, by="site")}
    assert by_site == {"berlin": len(OLD) + 500, "oslo": len(OLD)}
    (only,) = sums(fleet, by="variant", device="cam-2")
    assert (only["variant"], only["sent"]) == ("onnx-fp32", len(OLD))
    assert sums(fleet, model="other") == []
    page = {"by": "device", "limit": "1"}
    first = fleet.operator.get("/api/v1/bytes", params=page).json()
    rest = fleet.operator.get("/api/v1/bytes", params={**page, "cursor": first["next_cursor"]})
    assert [row["device"] for row in first["items"] + rest.json()["items"]] == ["cam-1", "cam-2"]
    assert rest.json()["next_cursor"] is None


def test_a_delta_counts_for_the_rollout_that_asked_for_it_and_says_what_it_saved(
    fleet: Fleet, cams: list[SimulatedDevice], context: Context, tmp_path: Path
) -> None:
    wish = {"model": "detector", "version": "2.1.0", "group": "all", "policy": "everyone-now"}
    made = fleet.operator.post("/api/v1/rollouts", json={**wish, "start": True})
    assert made.status_code == 201, made.text
    rollout = made.json()["id"]
    deadline = time.monotonic() + 30
    while cams[0].runs() != {"detector": "2.1.0"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = DeltaWorker(
        context.db,
        context.get(BlobStore),
        lambda: context.get(FleetState).snapshot,
        clock=context.clock,
        processes=1,
        folder=tmp_path / "scratch",
    )
    assert worker.work()
    path = f"/deltas/{OLD_SHA}/{NEW_SHA}"
    size = len(get(cams[0], path).content)
    for start, stop in ((0, 10_000), (10_000, size)):
        get(cams[1], path, Range=f"bytes={start}-{stop - 1}")
    (row,) = sums(fleet, by="rollout", rollout=rollout)
    assert (row["sent"], row["sent_delta"], row["sent_full"]) == (2 * size, 2 * size, 0)
    assert abs(row["saved"] - 2 * (len(NEW) - size)) <= 1
    assert row["devices"] == 2
    assert {r["rollout"] for r in sums(fleet, by="rollout")} == {"", rollout}


def test_a_download_that_is_cut_counts_as_what_went_out(fleet: Fleet) -> None:
    fleet.registry.publish("detector", "3.0.0", files={"model.onnx": BIG})
    fleet.group("all", "*")
    fleet.assign("all", "3.0.0")
    cam = fleet.device()
    host, port = fleet.client.base_url.host, fleet.client.base_url.port or 80
    with socket.create_connection((host, port)) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        asked = f"GET /blobs/{sha256_hex(BIG)} HTTP/1.1\r\nHost: x\r\n"
        line.sendall(f"{asked}Authorization: Bearer {cam.token}\r\n\r\n".encode())
        came = 0
        while came < 6_000_000:
            came += len(line.recv(65_536))
    (row,) = sums(fleet)
    # what the two systems' buffers held is on its way, and nobody can say how far it came
    assert came - 2_000 < row["sent"] < came + 8_000_000


def test_an_operator_who_downloads_is_not_counted(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    before = sums(fleet)
    assert fleet.operator.get(f"/blobs/{OLD_SHA}").content == OLD
    assert sums(fleet) == before


def test_counts_add_up_over_flushes_and_processes(db: Database) -> None:
    one, two = Counting(db), Counting(db)
    keys = [For(n, "m", "1.0.0", "onnx", "", "berlin") for n in range(1, 40)]

    def count(counting: Counting) -> None:
        for _ in range(5):
            for key in keys:
                counting.add(key, full=3, delta=2, stood_for=7)
            counting.flush()

    threads = [threading.Thread(target=count, args=(c,)) for c in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as session:
        found = session.execute(
            text("SELECT count(*), sum(sent_full), sum(sent_delta), sum(delta_for) FROM bytes_sent")
        ).one()
    assert [int(n) for n in found] == [39, 39 * 30, 39 * 20, 39 * 70]


@only_sqlite
def test_what_cannot_be_written_is_kept_for_the_next_time(db: Database) -> None:
    counting = Counting(db)
    counting.add(For(1, "m", "1.0.0", "onnx", "", ""), full=5)
    with db.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE bytes_sent RENAME TO away")
    with pytest.raises(OperationalError):
        counting.flush()
    with db.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE away RENAME TO bytes_sent")
    counting.add(For(1, "m", "1.0.0", "onnx", "", ""), full=2)
    counting.flush()
    with db.read() as session:
        assert session.connection().exec_driver_sql("SELECT sent_full FROM bytes_sent").all() == [
            (7,)
        ]


def test_limits_of_a_site_are_set_listed_and_taken_away(fleet: Fleet, db: Database) -> None:
    path = "/api/v1/site-limits"
    wish = {"site": "Werk Süd/3", "max_rate_kbps": 2000, "max_downloads": 2}
    made = fleet.operator.put(path, json=wish)
    assert made.status_code == 200, made.text
    assert made.json()["set_by"] == "token/test-operator"
    (listed,) = fleet.operator.get(path).json()["items"]
    assert (listed["site"], listed["max_rate_kbps"]) == ("Werk Süd/3", 2000)
    with db.read() as session:
        assert read_limits(session) == {"Werk Süd/3": SiteLimit(2000, None, 2)}
    fleet.operator.put(path, json={"site": "Werk Süd/3"})
    assert fleet.operator.get(path).json()["items"] == []
    assert fleet.operator.put(path, json={"site": "x", "max_rate_kbps": 0}).status_code == 422
    said = fleet.operator.get("/api/v1/events", params={"limit": 2}).json()["items"]
    assert [event["verb"] for event in said] == ["site.limit", "site.limit"]


def wait_for(found: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)
