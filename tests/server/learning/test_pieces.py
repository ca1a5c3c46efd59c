"""Updates in pieces: what is kept of one that is not whole, for how long, and of whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from pilotwave_agent.net.http import Channel
from pilotwave_agent.take_part.send_update import NetworkHeld, send_update
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.update import PIECE_BYTES, join_update
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_server.devices.service import get_device
from pilotwave_server.learning.pieces import KEEP, forget_old
from pilotwave_server.learning.tables import RoundRow, UpdatePieceRow, UpdateRow, UpdateUploadRow
from pilotwave_server.learning.updates import MOST_BYTES
from tests.protocol.learning.models import any_classifier
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet
from tests.server.learning.test_rounds import (
    EXPERIMENTS,
    publish_plan,
    send,
    start,
    the_experiment,
    the_round,
)
from tests.server.learning.wide import FEATURES, begin, piece, post, signed, wide_plan
from tests.server.registry.registry import Registry

pytestmark = pytest.mark.long

P = PIECE_BYTES


@pytest.fixture
def plan(published: Registry) -> TrainingPlan:
    return wide_plan(published)


@pytest.fixture
def published(published: Registry) -> Registry:
    """With a version whose embedding is wide, and a plan for it."""
    embedding = TensorSpec("active", "float32", (-1, FEATURES))
    files = {"model.onnx": any_classifier(features=FEATURES)}
    published.publish("detector", "2.0.0", files=files, outputs=(embedding,))
    publish_plan(published, wide_plan(published))
    return published


@pytest.fixture
def cams(fleet: Fleet) -> list[SimulatedDevice]:
    fleet.group("cams", "kind=cam")
    found = [fleet.device(f"cam-{n}", kind="cam") for n in range(3)]
    assert start(fleet).status_code == 201
    return found


def stored(fleet: Fleet) -> tuple[int, int]:
    """How many uploads there are, and how many pieces."""
    with fleet.context.db.read() as session:
        rows = (UpdateUploadRow, UpdatePieceRow)
        return tuple(session.scalar(select(func.count()).select_from(row)) or 0 for row in rows)


def send_rest(cam: SimulatedDevice, numbers: bytes, offset: int = 0) -> None:
    for at in range(offset, len(numbers), P):
        answer = piece(cam, numbers, at, numbers[at : at + P])
        assert answer.status_code == 204, answer.text


def test_an_update_in_pieces_counts_as_one_that_comes_whole(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0])
    assert len(numbers) > 2 * P
    assert begin(cams[0], envelope).json() == {"offset": 0}
    assert piece(cams[0], numbers, 0, numbers[:P]).status_code == 204
    assert begin(cams[0], envelope).json() == {"offset": P}
    assert the_round(fleet)["devices"] == 0
    send_rest(cams[0], numbers, P)
    assert the_round(fleet)["devices"] == 1
    with fleet.context.db.read() as session:
        assert session.scalar(select(UpdateRow.content)) == numbers
    assert stored(fleet) == (0, 0)
    # its last answer may be lost: it is whole, and nothing of it is sent again
    assert begin(cams[0], envelope).json() == {"offset": len(numbers)}
    # the whole at once, as older agents send it
    assert send(cams[1], join_update(*signed(plan, cams[1], 1))).status_code == 204
    assert the_round(fleet)["devices"] == 2


def test_pieces_that_do_not_fit_are_refused_and_those_that_do_still_taken(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    cam, other = cams[:2]
    envelope, numbers = signed(plan, cam)
    assert code_of(piece(cam, numbers, 0, numbers[:P])) == (404, "upload_unknown")
    begin(cam, envelope)
    begin(other, signed(plan, other, 1)[0])
    assert piece(cam, numbers, 0, numbers[:P]).status_code == 204
    wrong = [
        (cam, 0, numbers[:P], (409, "offset_mismatch")),
        (cam, P // 2, numbers[P // 2 : P // 2 + P], (409, "offset_mismatch")),
        (cam, 2 * P, numbers[2 * P :], (409, "offset_mismatch")),
        (cam, len(numbers), b"x", (409, "offset_mismatch")),
        (cam, P, numbers[P : P + 1], (422, "bad_piece")),
        (cam, P, b"", (422, "bad_piece")),
        (cam, P, numbers[P : 2 * P + 1], (413, "body_too_large")),
        # of another device
        (other, P, numbers[P : 2 * P], (404, "upload_unknown")),
    ]
    for who, offset, content, expected in wrong:
        answer = piece(who, numbers, offset, content)
        assert code_of(answer) in (expected, (422, "bad_piece")), (offset, len(content))
        assert answer.json().get("offset", P) == P
    for raw in (b"", b"\n", b"{}\nx", b"[]\nx", b'{"numbers":"","offset":0}\nx', b"{" * 300):
        assert code_of(post(cam, "/pieces", raw)) == (422, "bad_piece")
    for bad in (b"", b"{}", envelope[:-1], join_update(envelope, b"x")):
        assert code_of(begin(cam, bad)) == (422, "bad_update")
    assert code_of(begin(other, envelope)) == (422, "bad_update")
    assert stored(fleet) == (2, 1)
    send_rest(cam, numbers, P)
    # endless pieces: what is whole takes no more
    assert code_of(piece(cam, numbers, len(numbers), b"x" * P)) == (404, "upload_unknown")
    assert code_of(piece(cam, numbers, 0, numbers[:P])) == (404, "upload_unknown")
    assert the_round(fleet)["devices"] == 1


def test_the_same_piece_at_the_same_time_is_kept_once(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0])
    begin(cams[0], envelope)
    for at in range(0, len(numbers), P):
        part = numbers[at : at + P]
        with ThreadPoolExecutor(4) as threads:
            jobs = [threads.submit(piece, cams[0], numbers, at, part) for _ in range(4)]
        statuses = sorted(job.result().status_code for job in jobs)
        late = 404 if at + P >= len(numbers) else 409
        assert statuses == [204, late, late, late]
    assert the_round(fleet)["devices"] == 1


def test_numbers_that_are_not_those_signed_are_thrown_away(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0])
    begin(cams[0], envelope)
    assert piece(cams[0], numbers, 0, bytes(P)).status_code == 204
    assert piece(cams[0], numbers, P, numbers[P : 2 * P]).status_code == 204
    last = piece(cams[0], numbers, 2 * P, numbers[2 * P :])
    assert code_of(last) == (422, "bad_update")
    assert stored(fleet) == (0, 0)
    assert begin(cams[0], envelope).json() == {"offset": 0}
    send_rest(cams[0], numbers)


def test_numbers_that_no_examples_give_are_thrown_away(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0], 0, examples=41)
    begin(cams[0], envelope)
    for at in (0, P):
        assert piece(cams[0], numbers, at, numbers[at : at + P]).status_code == 204
    last = piece(cams[0], numbers, 2 * P, numbers[2 * P :])
    assert code_of(last) == (422, "impossible_update")
    assert stored(fleet) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device": "cam-1"}, (422, "bad_update")),
        ({"plan": "c" * 64}, (409, "round_over")),
        ({"round": 2}, (409, "round_over")),
    ],
    ids=["another's", "no such plan", "no such round"],
)
def test_what_nobody_waits_for_is_refused_before_its_numbers_come(
    fleet: Fleet,
    cams: list[SimulatedDevice],
    plan: TrainingPlan,
    changes: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    assert code_of(begin(cams[0], signed(plan, cams[0], **changes)[0])) == expected
    assert stored(fleet) == (0, 0)


def test_a_device_has_one_update_on_its_way(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    first, second = signed(plan, cams[0]), signed(plan, cams[0], 1)
    begin(cams[0], first[0])
    assert piece(cams[0], first[1], 0, first[1][:P]).status_code == 204
    assert begin(cams[0], second[0]).json() == {"offset": 0}
    assert stored(fleet) == (1, 0)
    send_rest(cams[0], second[1])
    assert code_of(begin(cams[0], first[0])) == (409, "update_repeated")


@pytest.mark.parametrize("how", ["end", "stop"])
def test_a_round_that_ends_takes_the_pieces_with_it(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan, how: str
) -> None:
    for seed, cam in enumerate(cams):
        envelope, numbers = signed(plan, cam, seed)
        begin(cam, envelope)
        assert piece(cam, numbers, 0, numbers[:P]).status_code == 204
    number = the_experiment(fleet)["id"]
    assert fleet.operator.post(f"{EXPERIMENTS}/{number}/{how}").is_success
    assert stored(fleet) == (0, 0)
    envelope, numbers = signed(plan, cams[0])
    assert code_of(begin(cams[0], envelope)) == (409, "round_over")
    assert code_of(piece(cams[0], numbers, P, numbers[P : 2 * P])) == (404, "upload_unknown")


def test_what_stands_still_for_a_day_is_forgotten(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0])
    begin(cams[0], envelope)
    assert piece(cams[0], numbers, 0, numbers[:P]).status_code == 204
    db, now = fleet.context.db, fleet.context.clock()
    forget_old(db, now=now + KEEP)
    assert stored(fleet) == (1, 1)
    forget_old(db, now=now + KEEP + timedelta(seconds=1))
    assert stored(fleet) == (0, 0)
    assert begin(cams[0], envelope).json() == {"offset": 0}


def test_what_is_begun_has_its_room_in_the_round(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0])
    begin(cams[0], envelope)
    with fleet.context.db.write() as session:
        session.execute(update(RoundRow).values(size=MOST_BYTES[plan.method] - len(numbers)))
    assert code_of(begin(cams[1], signed(plan, cams[1], 1)[0])) == (503, "round_full")
    send_rest(cams[0], numbers)


def test_a_device_that_goes_takes_its_pieces_along(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0])
    begin(cams[0], envelope)
    assert piece(cams[0], numbers, 0, numbers[:P]).status_code == 204
    with fleet.context.db.write() as session:
        session.delete(get_device(session, "cam-0"))
    assert stored(fleet) == (0, 0)


def test_a_network_that_may_be_used_no_more_ends_it_until_it_may_again(
    fleet: Fleet, cams: list[SimulatedDevice], plan: TrainingPlan
) -> None:
    envelope, numbers = signed(plan, cams[0])
    said = iter(["", "the network is metered"])
    channel = Channel(str(cams[0].http.base_url))
    whole = join_update(envelope, numbers)
    with pytest.raises(NetworkHeld, match="the network is metered"):
        send_update(channel, cams[0].token, whole, held=lambda: next(said))
    assert begin(cams[0], envelope).json() == {"offset": P}
    assert the_round(fleet)["devices"] == 0
    send_update(channel, cams[0].token, whole)
    channel.close()
    assert the_round(fleet)["devices"] == 1
