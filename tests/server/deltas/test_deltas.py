"""Deltas that the fleet needs are made in the background; who may read a file may read them."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotwave_protocol.digest import EMPTY_SHA256, sha256_hex
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.deltas import jobs
from pilotwave_server.deltas.needs import Pair, Running, needed, to_come
from pilotwave_server.deltas.tables import DeltaRow
from pilotwave_server.deltas.worker import DeltaWorker
from pilotwave_server.fleet.state import FleetState
from tests.deltas.pairs import applied, tuned, weights
from tests.server.device_api.peer import SimulatedDevice, code_of, report
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.registry import onnx

OLD = onnx("old", weights=weights(60_000, 1, "float16").tobytes())
NEW = onnx("new", weights=tuned(weights(60_000, 1, "float16"), 2, 1e-4).tobytes())
OLD_SHA, NEW_SHA = sha256_hex(OLD), sha256_hex(NEW)


@pytest.fixture
def worker(context: Context, tmp_path: Path) -> DeltaWorker:
    return DeltaWorker(
        context.db,
        context.get(BlobStore),
        lambda: context.get(FleetState).snapshot,
        clock=context.clock,
        processes=1,
        folder=tmp_path / "scratch",
    )


@pytest.fixture
def cam(fleet: Fleet) -> SimulatedDevice:
    """A device that runs 2.0.0 and is told to run 2.1.0."""
    fleet.registry.publish("detector", "2.0.0", files={"model.onnx": OLD})
    fleet.registry.publish("detector", "2.1.0", files={"model.onnx": NEW})
    device = fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "2.1.0")
    assert device.check_in(report("2.0.0")).status_code == 200
    return device


def get(device: SimulatedDevice, old: str, new: str, **headers: str) -> Any:
    headers["Authorization"] = f"Bearer {device.token}"
    return device.http.get(f"/deltas/{old}/{new}", headers=headers)


def test_a_delta_is_made_for_what_runs_and_given_to_the_device(
    cam: SimulatedDevice, worker: DeltaWorker, fleet: Fleet
) -> None:
    missing = get(cam, OLD_SHA, NEW_SHA)
    assert code_of(missing) == (404, "delta_missing")
    assert "retry-after" not in missing.headers
    assert worker.work() == 2  # and one for devices that have nothing yet
    answer = get(cam, OLD_SHA, NEW_SHA)
    assert answer.status_code == 200
    assert applied(answer.content, OLD) == NEW
    assert len(answer.content) < 0.7 * len(NEW)
    assert answer.headers["etag"] == f'"{sha256_hex(answer.content)}"'
    assert "immutable" in answer.headers["cache-control"]
    part = get(cam, OLD_SHA, NEW_SHA, Range="bytes=100-")
    assert (part.status_code, part.content) == (206, answer.content[100:])
    first = get(cam, EMPTY_SHA256, NEW_SHA)
    assert applied(first.content, b"") == NEW
    assert worker.work() == 0
    listed = fleet.operator.get("/api/v1/deltas?model=detector").json()["items"]
    assert {(d["from_sha256"], d["state"]) for d in listed} == {
        (OLD_SHA, "ready"),
        (EMPTY_SHA256, "ready"),
    }


def test_who_may_not_read_the_new_file_may_not_read_its_delta(
    cam: SimulatedDevice, worker: DeltaWorker, fleet: Fleet
) -> None:
    worker.work()
    fleet.assign("all", "1.0.0")
    assert code_of(get(cam, OLD_SHA, NEW_SHA)) == (403, "blob_denied")
    cam.token = "nonsense"
    assert get(cam, OLD_SHA, NEW_SHA).status_code == 401


def test_a_delta_that_saves_nothing_is_not_offered(
    fleet: Fleet, worker: DeltaWorker, context: Context
) -> None:
    noise = [onnx("noise", weights=random.Random(i).randbytes(40_000)) for i in (1, 2)]
    for version, data in zip(("2.0.0", "2.1.0"), noise, strict=True):
        fleet.registry.publish("detector", version, files={"model.onnx": data})
    cam = fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "2.1.0")
    cam.check_in(report("2.0.0"))
    assert worker.work() == 2
    old, new = (sha256_hex(data) for data in noise)
    assert code_of(get(cam, old, new)) == (404, "delta_missing")
    with context.db.read() as session:
        assert jobs.find(session, old, new).state == "useless"  # type: ignore[union-attr]


def test_a_delta_of_a_pair_that_is_forgotten_meanwhile_is_not_kept(
    cam: SimulatedDevice, worker: DeltaWorker, context: Context
) -> None:
    """One of its files may have been purged; the delta would hold its bytes."""

    class Slow(DeltaWorker):
        def _result(self, row: DeltaRow, folder: Path) -> tuple[str, dict[str, object]]:
            made = super()._result(row, folder)
            with self._db.write() as session:
                assert jobs.clear(session, row)
            return made

    before = {sha256 for sha256, _ in context.get(BlobStore).all()}
    worker.__class__ = Slow
    assert worker.work() == 2
    assert {sha256 for sha256, _ in context.get(BlobStore).all()} == before


def test_a_maker_that_fails_is_said_and_not_tried_for_ever(
    cam: SimulatedDevice, worker: DeltaWorker, context: Context
) -> None:
    context.get(BlobStore).path(OLD_SHA).unlink()
    assert worker.work() == 2
    assert worker.work() == 0
    with context.db.read() as session:
        row = jobs.find(session, OLD_SHA, NEW_SHA)
    assert row is not None
    assert row.state == "failed"
    assert f"no blob {OLD_SHA} is stored" in str(row.detail)


def test_only_one_worker_has_a_pair_and_a_dead_one_loses_it(db: Database, clock: Any) -> None:
    pair = Pair("detector", "a" * 64, "b" * 64, 1000)
    with db.write() as session:
        jobs.note(session, [pair, pair], now=clock())
        first = jobs.take(session, now=clock())
    assert first is not None
    with db.write() as session:
        assert jobs.take(session, now=clock()) is None
    clock.advance(seconds=(jobs.HOLD + timedelta(seconds=1)).total_seconds())
    with db.write() as session:
        second = jobs.take(session, now=clock())
        assert second is not None
        assert not jobs.finish(session, first, now=clock(), state="ready")
        assert jobs.finish(session, second, now=clock(), state="useless")
        assert jobs.take(session, now=clock()) is None


def test_a_stopped_worker_puts_its_pair_back(db: Database, clock: Any) -> None:
    with db.write() as session:
        jobs.note(session, [Pair("detector", "a" * 64, "b" * 64, 1000)], now=clock())
        row = jobs.take(session, now=clock())
        assert row is not None
        jobs.release(session, row)
    with db.read() as session:
        found = session.get(DeltaRow, ("a" * 64, "b" * 64))
    assert found is not None
    assert (found.generation, found.held_until) == (0, None)


@only_sqlite
def test_pairs_are_those_of_the_same_variant_most_devices_first(
    cam: SimulatedDevice, context: Context
) -> None:
    running = [
        Running("detector", "1.0.0", "onnx-fp32", 1),
        Running("detector", "2.0.0", "onnx-fp32", 5),
        Running("detector", "2.0.0", "onnx-int8", 9),
        Running("detector", "9.9.9", "onnx-fp32", 9),
    ]
    found = [(p.old, p.new) for p in needed(context.get(FleetState).snapshot, running)]
    small = (
        context.get(FleetState).snapshot.versions["detector", "1.0.0"].variants[0].files[0].sha256
    )
    assert found == [(OLD_SHA, NEW_SHA), (small, NEW_SHA), (EMPTY_SHA256, NEW_SHA)]


@only_sqlite
def test_what_a_group_was_told_before_is_not_to_come(cam: SimulatedDevice, fleet: Fleet) -> None:
    fleet.group("more", "*")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        fleet.assign("more", version)
    snapshot = fleet.context.get(FleetState).snapshot
    assert [v.version for v in to_come(snapshot)] == ["1.2.0", "2.1.0"]


def test_a_device_is_told_to_wait_for_a_delta_that_is_being_made(
    cam: SimulatedDevice, context: Context, clock: Any
) -> None:
    context.settings = context.settings.model_copy(update={"delta_processes": 1})
    with context.db.write() as session:
        jobs.note(session, [Pair("detector", OLD_SHA, NEW_SHA, len(NEW))], now=clock())
    answer = get(cam, OLD_SHA, NEW_SHA)
    assert code_of(answer) == (404, "delta_pending")
    assert (answer.headers["retry-after"], answer.headers["cache-control"]) == ("2", "no-store")
    clock.advance(seconds=3601)
    cam.check_in(report("2.0.0"))  # for a fresh token
    assert code_of(get(cam, OLD_SHA, NEW_SHA)) == (404, "delta_missing")


def test_what_the_fleet_needs_no_more_is_cleared_a_day_later(
    cam: SimulatedDevice, worker: DeltaWorker, context: Context, fleet: Fleet, clock: Any
) -> None:
    assert worker.work() == 2
    with context.db.read() as session:
        row = jobs.find(session, OLD_SHA, NEW_SHA)
    assert row is not None
    path = context.get(BlobStore).path(str(row.delta_sha256))
    clock.advance(seconds=2 * 3600)
    look(worker)
    cam.check_in(report("2.1.0"))  # from now on nobody has 2.0.0
    clock.advance(seconds=jobs.KEEP.total_seconds() - 60)
    look(worker)
    assert path.exists()
    clock.advance(seconds=120)
    look(worker)
    assert not path.exists()
    listed = fleet.operator.get("/api/v1/deltas").json()["items"]
    assert [d["from_sha256"] for d in listed] == [EMPTY_SHA256]  # needed by whoever comes new


def look(worker: DeltaWorker) -> None:
    worker._note_at = 0.0  # it looks once a minute
    worker.work()


def test_an_operator_has_a_delta_made_once_more(
    cam: SimulatedDevice, worker: DeltaWorker, context: Context, fleet: Fleet
) -> None:
    path = context.get(BlobStore).path(OLD_SHA)
    away = path.rename(path.with_suffix(".away"))
    worker.work()
    url = f"/api/v1/deltas/{OLD_SHA}/{NEW_SHA}"
    assert fleet.operator.get(url).json()["state"] == "failed"
    away.rename(path)
    assert fleet.operator.post(f"{url}/again").json()["state"] == "waiting"
    assert worker.work() == 1
    assert fleet.operator.get(url).json()["state"] == "ready"
    unknown = f"/api/v1/deltas/{OLD_SHA}/{OLD_SHA}"
    assert fleet.operator.get(unknown).status_code == 404
    assert fleet.operator.post(f"{unknown}/again").status_code == 404
