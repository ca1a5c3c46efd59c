"""A server whose database is older than what its devices have seen, over HTTP and by command."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pilotwave_protocol.fields import MAX_INT
from pilotwave_server.context import Context
from pilotwave_server.dashboard import overview
from pilotwave_server.recovery.lift import GAP, VERB, lift_by, lift_by_itself
from pilotwave_server.recovery.plan import TWO_MAY_LIFT
from pilotwave_server.recovery.worker import Recovery
from pilotwave_server.registry.trust import TrustStore
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet


@pytest.fixture
def cams(fleet: Fleet, context: Context) -> list[SimulatedDevice]:
    """Three devices of a server whose own worker rests, so that a test says when it looks."""
    stop(context)
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    return [fleet.device(f"cam-{n}") for n in range(3)]


def stop(context: Context) -> None:
    for worker in context.workers:
        if isinstance(worker, Recovery):
            worker.stop()


def look(context: Context) -> Any:
    return lift_by_itself(context.db, context.get(TrustStore), now=context.clock())


def status(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = fleet.operator.get("/api/v1/status").json()
    return found


def tell(cam: SimulatedDevice, seq: int, version: int, **given: Any) -> None:
    tuf = {"root": 1, "timestamp": version, "snapshot": version}
    assert cam.check_in(directive_seq=seq, tuf=tuf, **given).status_code == 200


def audited(fleet: Fleet) -> list[dict[str, Any]]:
    found = fleet.operator.get("/api/v1/events", params={"limit": 50}).json()["items"]
    return [event for event in found if event["verb"] == VERB]


def test_numbers_are_lifted_above_what_two_devices_have_seen(
    fleet: Fleet, context: Context, cams: list[SimulatedDevice], clock: Any
) -> None:
    before = status(fleet)
    assert (before["ahead"], look(context)) == (None, None)
    for cam in cams[:2]:
        tell(cam, 400, 90)
    told = status(fleet)["ahead"]
    assert (told["devices"], told["names"], told["directive_seq"]) == (2, ["cam-0", "cam-1"], 400)
    assert "2 devices have seen more" in told["sentence"]
    metrics = fleet.operator.get("/metrics").text
    assert "pilotwave_devices_ahead 2.0" in metrics
    done = look(context)
    assert (done.after.seq, done.after.timestamp, done.after.snapshot) == (401, 91, 91)
    after = status(fleet)
    assert after["ahead"] is None
    assert "was behind its devices" in after["notices"][-1]["sentence"]
    (event,) = audited(fleet)
    assert (event["actor"], event["after"]["seq"], event["after"]["names"]) == (
        "server",
        401,
        ["cam-0", "cam-1"],
    )
    directive = cams[2].directive()
    assert (directive.seq, directive.min_snapshot) == (401, 91)
    fleet.registry.device(context.settings.data_dir / "cache").refresh()
    assert (context.settings.data_dir / "tuf/metadata/91.snapshot.json").exists()
    assert fleet.registry.publish("detector", "1.4.0")


def test_one_liar_moves_little_and_seldom_and_is_named(
    fleet: Fleet, context: Context, cams: list[SimulatedDevice], clock: Any
) -> None:
    liar, began = cams[0], status(fleet)["revision"]
    tell(liar, MAX_INT, MAX_INT)
    assert look(context) is None
    assert status(fleet)["ahead"]["names"] == ["cam-0"]
    for _ in range(5):
        tell(liar, status(fleet)["revision"] + 10, 1)
        look(context)
    assert status(fleet)["revision"] <= began + 12
    assert len(audited(fleet)) == 1
    clock.advance(seconds=GAP.total_seconds() + 1)
    cams[1].check_in()
    tell(liar, status(fleet)["revision"] + 10, 1)
    assert look(context) is not None
    assert len([n for n in status(fleet)["notices"] if "cam-0" in n["sentence"]]) == 1


@pytest.mark.parametrize("reason", ["directive_fork", "directive_replayed"])
def test_a_directive_that_this_server_did_not_give_is_gone_beyond(
    fleet: Fleet, context: Context, cams: list[SimulatedDevice], reason: str
) -> None:
    """Lost: one change. After it the numbers of devices' directives are equal, or the lost one's is
    higher, though the fleet's counter, which counts other changes too, is above both."""
    seq, counter = cams[0].directive().seq, status(fleet)["revision"]
    assert seq + 1 < counter
    lost = seq if reason == "directive_fork" else seq + 1
    tell(cams[0], lost, 1, refusal={"reason": reason, "detail": "another set"})
    if reason == "directive_replayed":
        # the device itself was changed later than the fleet here
        assert cams[0].directive().seq < counter
    assert "did not give" in status(fleet)["ahead"]["sentence"]
    assert look(context).after.seq == counter + 1
    assert cams[0].directive().seq == counter + 1


def test_a_role_that_went_back_is_named_with_what_helps(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    details = [
        "models-detector: expected version 77 or later; got 4",
        "Expected models-detector.json version 4, got 70.",
        "Expected models-unknown.json version 4, got 70.",
        "Expected models-detector.json version 4, got " + "9" * 400,
        "nothing of the kind <b>",
        "Expected timestamp.json version 4, got 99.",
    ]
    for cam, detail in zip(cams * 2, details, strict=False):
        tell(cam, 0, 0, refusal={"reason": "metadata_rollback", "detail": detail})
        found = status(fleet)["roles_behind"]
        assert [r["role"] for r in found] in ([], ["models-detector"])
    tell(cams[0], 0, 0, refusal={"reason": "metadata_rollback", "detail": details[0]})
    assert status(fleet)["roles_behind"] == [{"role": "models-detector", "seen": 77, "here": 4}]


def test_a_person_lifts_all_whatever_devices_say(
    fleet: Fleet, context: Context, cams: list[SimulatedDevice]
) -> None:
    for cam in cams[:2]:
        tell(cam, MAX_INT, MAX_INT)
    before = status(fleet)["revision"]
    done = lift_by(
        context.db, context.get(TrustStore), by=1000, actor="server", now=context.clock()
    )
    assert done.after.seq == before + 1000
    tell(cams[0], before + 1400, 1)
    done = lift_by(
        context.db, context.get(TrustStore), by=1000, actor="server", now=context.clock()
    )
    assert done.after.seq == before + 2400
    assert done.after.timestamp > 1000
    assert cams[2].directive().seq == before + 2400
    assert TWO_MAY_LIFT < MAX_INT


def test_the_worker_looks_when_a_check_in_says_more_than_is_known(fleet: Fleet) -> None:
    """The whole server, its worker running: nobody calls anything."""
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    cams = [fleet.device(f"cam-{n}") for n in range(2)]
    for cam in cams:
        tell(cam, 300, 60)
    deadline = time.monotonic() + 90
    while status(fleet)["revision"] <= 300:
        assert time.monotonic() < deadline, status(fleet)
        time.sleep(0.1)
    while cams[0].directive().seq != 301:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_page_says_who_is_ahead(
    fleet: Fleet, context: Context, cams: list[SimulatedDevice]
) -> None:
    tell(cams[0], 5000, 1)
    (said,) = [
        item.sentence
        for item in overview.take(context).attention
        if item.title == "restored server"
    ]
    assert "cam-0" in said
    assert "pilotwave-server restore --data" in said
