"""Masked rounds over HTTP: the sum of a group with leavers at each step, and nothing of any one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import undefer

from pilotwave_protocol.learning.masked.step import Wants
from pilotwave_protocol.learning.statistics import Statistics
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.learning.finish import finish_all
from pilotwave_server.learning.masked.groups import go_on_all
from pilotwave_server.learning.masked.tables import GroupRow, MemberRow
from pilotwave_server.learning.sum_up import Validation
from tests.server.device_api.peer import code_of
from tests.server.fleet_fixtures import Fleet
from tests.server.learning.masked.parts import (
    GROUP,
    THRESHOLD,
    Part,
    publish_masked,
    sum_of,
    visit_all,
    with_numbers,
)
from tests.server.learning.test_rounds import (
    EXPERIMENTS,
    examples,
    start,
    the_experiment,
    the_round,
    waiting,
)

pytestmark = pytest.mark.long


@pytest.fixture
def parts(fleet: Fleet) -> list[Part]:
    return make(fleet, GROUP)


def make(fleet: Fleet, count: int) -> list[Part]:
    plan = publish_masked(fleet.registry)
    fleet.group("cams", "kind=cam")
    assert start(fleet, plan="masked-1").status_code == 201
    return [
        Part(fleet.device(f"cam-{n}", kind="cam"), plan, seed)
        for seed, n in enumerate(range(count))
    ]


def groups(fleet: Fleet) -> list[GroupRow]:
    with fleet.context.db.read() as session:
        query = select(GroupRow).order_by(GroupRow.id).options(undefer(GroupRow.content))
        found = list(session.scalars(query))
        for group in found:
            session.expunge(group)
        return found


def phases(fleet: Fleet) -> list[str]:
    return [group.phase for group in groups(fleet)]


def content(fleet: Fleet) -> Statistics:
    with fleet.context.db.read() as session:
        raw = session.scalars(select(GroupRow.content).where(GroupRow.content.is_not(None))).one()
    assert raw is not None
    return Statistics.from_bytes(raw, features=6, classes=3)


def time_is_over(fleet: Fleet) -> None:
    """End the phases that go on."""
    go_on_all(fleet.context.db, now=fleet.context.clock() + timedelta(days=100))


def end(fleet: Fleet) -> dict[str, Any]:
    number = the_experiment(fleet)["id"]
    assert fleet.operator.post(f"{EXPERIMENTS}/{number}/end").status_code == 204
    return the_round(fleet)


def nothing_is_left(fleet: Fleet) -> None:
    with fleet.context.db.read() as session:
        for column in ("shares", "numbers", "answer"):
            query = f"SELECT count(*) FROM learning_masked_members WHERE {column} IS NOT NULL"
            assert session.scalar(text(query)) == 0


def test_a_group_from_its_keys_to_the_head(fleet: Fleet, parts: list[Part]) -> None:
    assert all(len(waiting(part.cam)) == 1 for part in parts)
    assert visit_all(parts) == ["keys"] * GROUP
    assert visit_all(parts) == ["shares"] * GROUP
    assert visit_all(parts) == ["input"] * GROUP
    assert visit_all(parts[:THRESHOLD]) == ["answer"] * THRESHOLD
    assert phases(fleet) == ["done"]
    # whoever has answered is not asked again; the last one learns that nothing is left to do
    assert [len(waiting(part.cam)) for part in parts] == [0, 0, 0, 0, 1]
    assert parts[-1].visit() is Wants.OVER
    found, wanted = content(fleet), sum_of(parts)
    np.testing.assert_allclose(found.gram, wanted.gram, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found.cross, wanted.cross, rtol=1e-6, atol=1e-4)
    nothing_is_left(fleet)
    assert (the_round(fleet)["devices"], the_round(fleet)["examples"]) == (GROUP, 40 * GROUP)
    after = end(fleet)
    assert (after["state"], after["left_out"]) == ("done", 0)
    number = the_experiment(fleet)["id"]
    head = fleet.operator.get(f"{EXPERIMENTS}/{number}/head").content
    own = Validation(*examples(50, 999)).sums(3)  # the publisher's count too
    np.testing.assert_allclose(
        np.frombuffer(head, "<f4").reshape(7, 3), (wanted + own).head(1.0), atol=1e-4
    )
    assert [group.content for group in groups(fleet)] == [None]


@pytest.mark.parametrize("step", ["shares", "input", "answer"])
def test_who_leaves_before_a_step_is_done_without(
    fleet: Fleet, parts: list[Part], step: str
) -> None:
    here = parts
    for wanted in ("keys", "shares", "input", "answer"):
        here = parts[1:] if wanted == step or here is not parts else parts
        assert visit_all(here) == [wanted] * len(here)
        if wanted == step:
            time_is_over(fleet)
    assert phases(fleet) == ["done"]
    # the sum holds whoever had sent its numbers
    held = parts if step == "answer" else parts[1:]
    np.testing.assert_allclose(content(fleet).cross, sum_of(held).cross, rtol=1e-6, atol=1e-4)
    assert groups(fleet)[0].devices == len(held)
    nothing_is_left(fleet)
    # and who left may join another group, unless its numbers are in the sum
    assert parts[0].step().wants is (Wants.OVER if step == "answer" else Wants.LOST)


@pytest.mark.parametrize("step", ["shares", "input", "answer"])
def test_with_too_few_the_group_is_lost_and_another_may_be_joined_once(
    fleet: Fleet, parts: list[Part], step: str
) -> None:
    here = parts
    for wanted in ("keys", "shares", "input", "answer"):
        here = parts[: THRESHOLD - 1] if wanted == step or here is not parts else parts
        if phases(fleet) != ["lost"]:
            assert visit_all(here) == [wanted] * len(here)
            if wanted == step:
                time_is_over(fleet)
    (group,) = groups(fleet)
    assert (group.phase, group.devices) == ("lost", 0)
    assert f"{THRESHOLD - 1} of {THRESHOLD} or more sent {step}" in str(group.detail)
    nothing_is_left(fleet)
    asked = [part.step().wants for part in parts]
    if step == "answer":  # of two sums that hold the same devices one could be taken away
        assert asked == [Wants.WAIT] * (THRESHOLD - 1) + [Wants.LOST] * 2
        return
    assert asked == [Wants.LOST] * GROUP
    for wanted in ("lost", "shares", "input"):
        assert visit_all(parts) == [wanted] * GROUP
    assert visit_all(parts[:THRESHOLD]) == ["answer"] * THRESHOLD
    assert phases(fleet) == ["lost", "done"]
    np.testing.assert_allclose(content(fleet).cross, sum_of(parts).cross, rtol=1e-6, atol=1e-4)


def test_a_device_is_in_no_third_group(fleet: Fleet, parts: list[Part]) -> None:
    for wanted in ("keys", "lost"):
        assert visit_all(parts) == [wanted] * GROUP
        time_is_over(fleet)
    assert phases(fleet) == ["lost", "lost"]
    assert [part.visit() for part in parts] == [Wants.OVER] * GROUP


def test_a_member_whose_numbers_are_of_no_examples_spoils_its_group(
    fleet: Fleet, parts: list[Part]
) -> None:
    with_numbers(parts[2], cross=-parts[2].sums.cross)
    for _ in range(3):
        visit_all(parts)
    visit_all(parts[:THRESHOLD])
    (group,) = groups(fleet)
    assert group.phase == "lost"
    assert "none of examples" in str(group.detail)
    nothing_is_left(fleet)
    assert (end(fleet)["state"], the_experiment(fleet)["detail"]) == (
        "failed",
        "0 of 3 devices took part",
    )


def test_a_group_that_harms_is_left_out(fleet: Fleet) -> None:
    """Two groups of honest devices, and one in which all tell many wrong labels."""
    parts = make(fleet, 3 * GROUP)
    for part in parts[GROUP : 2 * GROUP]:
        liar = Part(part.cam, part.plan, 7, rows=200, lies=True)
        part.sums, part.numbers = liar.sums, liar.numbers
    for _ in range(4):
        visit_all(parts)
    assert phases(fleet) == ["done"] * 3
    after = end(fleet)
    assert (after["state"], after["left_out"]) == ("done", 1)
    assert [group.gain is not None for group in groups(fleet)] == [False, True, False]


def test_what_was_sent_is_taken_again_and_counts_once(fleet: Fleet, parts: list[Part]) -> None:
    for _ in range(3):
        for part in parts:
            part.visit()
            assert part.send(part.last).status_code == 204
    # out of turn, of another's, changed, of no group
    early = parts[0].make(parts[0].step())
    assert code_of(parts[1].send(early)) == (422, "bad_update")
    assert code_of(parts[0].send(early[:-9] + b"aaaaaaaa\n")) == (422, "bad_update")
    assert parts[0].send(early).status_code == 204
    again = Part(parts[0].cam, parts[0].plan, 1)
    again.make(type(parts[0].step())(Wants.KEYS))
    assert code_of(again.send(again.make(type(parts[0].step())(Wants.KEYS)))) == (
        409,
        "update_repeated",
    )


def test_numbers_that_do_not_fit_are_refused(fleet: Fleet, parts: list[Part]) -> None:
    for _ in range(2):
        visit_all(parts)
    message = parts[0].make(parts[0].step())
    assert code_of(parts[0].send(message[:-1])) == (422, "bad_update")
    assert code_of(parts[0].send(message + b"1")) == (422, "bad_update")
    assert code_of(parts[0].send(message.partition(b"\n")[0])) == (422, "bad_update")
    assert parts[0].send(message).status_code == 204


def test_a_round_that_ends_deletes_what_its_groups_had(fleet: Fleet, parts: list[Part]) -> None:
    for _ in range(3):
        visit_all(parts)
    assert parts[0].visit() is Wants.ANSWER
    over = parts[0].plan.deadline
    finish_all(fleet.context.db, fleet.context.get(BlobStore), now=over)
    (group,) = groups(fleet)
    assert (group.phase, group.detail) == ("lost", "the round ended")
    nothing_is_left(fleet)
    assert the_experiment(fleet)["state"] == "failed"


def test_an_update_in_the_open_is_not_taken_in_a_masked_round(
    fleet: Fleet, parts: list[Part]
) -> None:
    from tests.server.learning.test_rounds import send, update

    cam, digest = parts[0].cam, parts[0].digest
    assert code_of(send(cam, update(fleet, cam, plan=digest))) == (409, "round_over")


def test_no_true_sum_of_a_device_is_in_the_database(fleet: Fleet, parts: list[Part]) -> None:
    for _ in range(3):
        visit_all(parts)
    visit_all(parts[:THRESHOLD])
    stored = b""
    with fleet.context.db.read() as session:
        for row in session.scalars(select(MemberRow)):
            stored += row.keys + (row.shares or b"") + (row.numbers or b"") + (row.answer or b"")
        stored += b"".join(filter(None, session.scalars(select(GroupRow.content))))
    assert sum_of(parts).to_bytes()[:16] in stored or content(fleet).to_bytes() in stored
    for part in parts:
        assert part.numbers[:16] not in stored
