"""Server processes are killed at each step of a round: what was acknowledged is there, what is sent
again counts once, and the result is the same, byte for byte."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from sqlalchemy import delete, select
from sqlalchemy import update as change

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.update import split_update
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.db import Database
from pilotwave_server.learning.finish import finish_all
from pilotwave_server.learning.tables import RoundRow, UpdateRow
from pilotwave_server.settings import Settings
from tests.forking import Forker, forker
from tests.protocol.learning.models import any_classifier
from tests.server.device_api.peer import SimulatedDevice
from tests.server.device_api.test_crash import admin_of
from tests.server.fleet_fixtures import Fleet
from tests.server.killed import KilledServer, killed_server
from tests.server.learning import dying
from tests.server.learning.test_rounds import (
    EXPERIMENTS,
    plan_of,
    publish_plan,
    send,
    start,
    the_round,
    update,
)
from tests.server.learning.test_rounds import cams as cams
from tests.server.registry.registry import Registry

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
MOST_STEPS = 31
KILLED_AFTER_S = (0.0, 0.003, 0.01, 0.03, 0.06, 0.12)


@pytest.fixture
def published(published: Registry) -> Registry:
    """With as many plans as there may be steps, all alike but for their names."""
    embedding = TensorSpec("active", "float32", (-1, 6))
    files = {"model.onnx": any_classifier()}
    published.publish("detector", "2.0.0", files=files, outputs=(embedding,))
    ends = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=300)
    names = ["autumn-1", *(f"step-{n}" for n in range(MOST_STEPS))]
    publish_plan(published, *(plan_of(published, plan=name, deadline=ends) for name in names))
    return published


@pytest.fixture(scope="module")
def forks() -> Iterator[Forker]:
    with forker("tests.server.learning.dying") as made:
        yield made


def digest_of(registry: Registry, plan: str) -> str:
    """The digest of a plan, as its publisher signed it."""
    role = registry.role("detector").signed
    named: dict[str, str] = role.targets["models/detector/_policy"].custom["plans"]
    return named[plan]


def ran(forks: Forker, function: Callable[..., None], *words: object) -> bool:
    """Run it in a process of its own; say whether it came to its end or was killed."""
    status = forks.wait(forks.fork(function, *words))
    assert status in (0, -signal.SIGKILL)
    return status == 0


def stored(db: Database) -> list[tuple[str, bytes | None]]:
    """Which devices' updates are stored, with their numbers."""
    with db.read() as session:
        return list(session.execute(select(UpdateRow.device, UpdateRow.content)).tuples())


def test_an_update_is_kept_whole_or_not_at_all_and_counts_once(
    fleet: Fleet, cams: list[SimulatedDevice], forks: Forker, database_url: str
) -> None:
    db, cam = fleet.context.db, cams[0]
    assert start(fleet).status_code == 201
    raw = update(fleet, cam, plan=digest_of(fleet.registry, "autumn-1"))
    kept = [(cam.name, split_update(raw)[1])]
    found = []
    for step in range(MOST_STEPS):
        words = (database_url, raw, cam.name, fleet.context.clock(), step)
        lived = ran(forks, dying.take, *words)
        found.append(stored(db))
        assert found[-1] in ([], kept), step
        assert send(cam, raw).status_code == 204  # the device sends it until it is told so
        assert stored(db) == kept, step
        assert (the_round(fleet)["devices"], the_round(fleet)["examples"]) == (1, 40), step
        if lived:
            break
        with db.write() as session:
            session.execute(delete(UpdateRow))
            session.execute(change(RoundRow).values(devices=0, examples=0, size=0))
    assert lived
    assert found[-2:] == [kept, kept]
    assert found[:-2] == [[]] * (len(found) - 2)
    assert len(found) > 4


def test_a_round_that_ends_gives_the_same_result_wherever_its_server_died(
    fleet: Fleet, cams: list[SimulatedDevice], forks: Forker, database_url: str
) -> None:
    db, now, blobs = fleet.context.db, fleet.context.clock(), fleet.context.get(BlobStore)
    heads, met = [], []
    for step in range(MOST_STEPS):
        plan = f"step-{step}"
        number = start(fleet, plan=plan).json()["id"]
        for seed, cam in enumerate(cams):
            raw = update(fleet, cam, seed, lies=seed == 3, plan=digest_of(fleet.registry, plan))
            assert send(cam, raw).status_code == 204
        words = (database_url, fleet.registry.data_dir, number, now, step)
        lived = ran(forks, dying.end_round, *words)
        met.append(the_round(fleet)["state"])
        if met[-1] == "open":
            assert fleet.operator.post(f"{EXPERIMENTS}/{number}/end").status_code == 204
        finish_all(db, blobs, now=now)
        found = the_round(fleet)
        assert (found["state"], found["devices"], found["left_out"]) == ("done", 4, 1), step
        heads.append(fleet.operator.get(f"{EXPERIMENTS}/{number}/head").content)
        assert {content for _, content in stored(db)} == {None}, step
        if lived:
            break
    assert lived
    assert set(met) == {"open", "closing", "done"}
    assert met == sorted(met, key=["open", "closing", "done"].index)
    assert len(set(heads)) == 1
    assert len(heads[0]) == 7 * 3 * 4


@pytest.fixture
def killed(published: Registry, settings: Settings) -> Iterator[KilledServer]:
    with killed_server(settings) as made:
        yield made


@pytest.fixture
def admin(killed: KilledServer, db: Database) -> Iterator[httpx.Client]:
    with admin_of(killed, db) as client:
        yield client


@pytest.fixture
def boards(killed: KilledServer, admin: httpx.Client) -> Iterator[list[SimulatedDevice]]:
    """Devices of the server to be killed, which has a round open for them."""
    count = len(KILLED_AFTER_S)
    wanted = {"count": count, "labels": {"kind": "cam"}}
    codes = admin.post("/api/v1/enrolment-codes", json=wanted).json()["items"]
    group = {"name": "cams", "selector": "kind=cam"}
    assert admin.post("/api/v1/groups", json=group).status_code == 201
    asked = {"model": "detector", "plan": "autumn-1", "group": "cams"}
    assert admin.post(EXPERIMENTS, json=asked).status_code == 201
    with contextlib.ExitStack() as lines:
        made = []
        for n, code in enumerate(codes):
            line = lines.enter_context(httpx.Client(base_url=killed.url, timeout=60))
            made.append(SimulatedDevice(f"board-{n}", line))
            assert made[-1].enrol(code["code"]).status_code == 201
            assert made[-1].check_in().status_code == 200
        yield made


def signed(registry: Registry, board: SimulatedDevice) -> bytes:
    here = Fleet(None, None, None, registry)  # type: ignore[arg-type]  # of it, the registry alone
    return update(here, board, plan=digest_of(registry, "autumn-1"))


def test_what_was_acknowledged_outlives_any_kill_of_a_real_server(
    killed: KilledServer, boards: list[SimulatedDevice], published: Registry, db: Database
) -> None:
    acknowledged: set[str] = set()
    for after_s, board in zip(KILLED_AFTER_S, boards, strict=True):
        raw, answers = signed(published, board), list[int]()

        def deliver(
            board: SimulatedDevice = board, raw: bytes = raw, answers: list[int] = answers
        ) -> None:
            with contextlib.suppress(httpx.TransportError):
                answers.append(send(board, raw).status_code)

        thread = threading.Thread(target=deliver)
        thread.start()
        time.sleep(after_s)
        killed.kill()
        thread.join()
        killed.start()
        assert answers in ([], [204])
        acknowledged |= {board.name} if answers else set()
        assert acknowledged <= {name for name, _ in stored(db)}, after_s
        for _ in range(2):
            assert send(board, raw).status_code == 204
        acknowledged.add(board.name)
        assert sorted(name for name, _ in stored(db)) == sorted(acknowledged), after_s
    numbers = [content for _, content in stored(db)]
    assert all(content is not None for content in numbers)
    assert {sha256_hex(content or b"") for content in numbers} == {
        sha256_hex(split_update(signed(published, board))[1]) for board in boards
    }


def test_half_an_update_is_none(
    killed: KilledServer, boards: list[SimulatedDevice], published: Registry, db: Database
) -> None:
    board = boards[0]
    raw = signed(published, board)
    head = (
        f"POST /device/v1/updates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {board.token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    for part in (0, 1, len(raw) // 2, len(raw) - 1):
        with socket.create_connection(("127.0.0.1", killed.port)) as line:
            line.sendall(head.encode() + raw[:part])
            time.sleep(0.05)
            killed.kill()
        killed.start()
        assert stored(db) == [], part
    assert send(board, raw).status_code == 204
    assert len(stored(db)) == 1
