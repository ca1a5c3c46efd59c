"""How a device and the server agree on numbers again: one case each."""

from __future__ import annotations

from typing import Any

from pilotwave_protocol.messages.check_in import DeviceEvent, MetricReport
from pilotwave_protocol.sketch import Sketch
from tests.server.device_api.peer import SimulatedDevice, code_of, report
from tests.server.fleet_fixtures import Fleet

PATH = "/device/v1/check-in"
A, B, C = "aa" * 16, "bb" * 16, "cc" * 16


def event(id: int, clock: Any, detail: str) -> DeviceEvent:
    return DeviceEvent(id=id, at=clock(), kind="tried", detail=detail)


def details(fleet: Fleet) -> list[str]:
    found = fleet.operator.get("/api/v1/devices/cam-1/events").json()["items"]
    return [e["detail"] for e in found][::-1]


def joined(cam: SimulatedDevice, numbering: str, seq: int = 1, **given: Any) -> str:
    """Have a device take a numbering; return the challenge that it answered."""
    refused = cam.check_in(seq=seq, numbering=numbering, **given)
    assert code_of(refused) == (409, "stale_seq")
    challenge = str(refused.json()["challenge"])
    taken = cam.check_in(seq=seq, numbering=numbering, challenge=challenge, **given)
    assert taken.status_code == 200, taken.text
    return challenge


def test_a_new_numbering_needs_a_challenge_and_may_begin_low(fleet: Fleet) -> None:
    cam = fleet.device()
    cam.check_in(seq=2**53 - 1)
    joined(cam, A, seq=1)
    assert cam.check_in(seq=2, numbering=A).status_code == 200
    assert code_of(cam.check_in(seq=2, numbering=A)) == (409, "stale_seq")
    assert cam.check_in(seq=2**53 - 1, numbering=A).status_code == 200
    joined(cam, B, seq=1)


def test_a_challenge_is_good_once(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    challenge = joined(cam, A)
    raw = cam.check_in_envelope(seq=1, numbering=B, challenge=challenge)
    assert code_of(cam.post(PATH, raw)) == (409, "stale_seq")
    joined(cam, B)
    # what was recorded under an earlier numbering counts no more, however high
    assert code_of(cam.check_in(seq=900, numbering=A)) == (409, "stale_seq")
    assert code_of(cam.check_in(seq=900, numbering=A, challenge=challenge)) == (409, "stale_seq")
    late = str(cam.check_in(seq=1, numbering=C).json()["challenge"])
    clock.advance(seconds=301)
    assert code_of(cam.check_in(seq=1, numbering=C, challenge=late)) == (409, "stale_seq")


def test_a_challenge_is_one_devices_own(fleet: Fleet) -> None:
    cam, other = fleet.device(), fleet.device("cam-2")
    challenge = str(other.check_in(seq=1, numbering=A).json()["challenge"])
    refused = cam.check_in(seq=1, numbering=A, challenge=challenge)
    assert code_of(refused) == (409, "stale_seq")
    # nor is a challenge a token, nor a token a challenge
    other.token = challenge
    assert code_of(other.poll()) == (401, "bad_token")
    forged = cam.check_in(seq=1, numbering=A, challenge=cam.token)
    assert code_of(forged) == (409, "stale_seq")


def test_an_agent_that_knows_of_no_numberings_goes_on_above_its_own(fleet: Fleet) -> None:
    """After an update of the agent and back: its numbers rise in one file."""
    cam = fleet.device()
    assert cam.check_in(seq=40).status_code == 200
    joined(cam, A, seq=41)
    replayed = cam.check_in(seq=41)
    assert code_of(replayed) == (409, "stale_seq")
    assert replayed.json()["last_seq"] == 41
    assert cam.check_in(seq=42).status_code == 200
    joined(cam, B, seq=3)
    assert code_of(cam.check_in(seq=42)) == (409, "stale_seq")


def test_events_of_a_new_numbering_are_stored_and_those_that_came_before_once(
    fleet: Fleet, clock: Any
) -> None:
    cam = fleet.device()
    joined(cam, A, events=(event(1, clock, "one"), event(2, clock, "two")))
    joined(cam, B, events=(event(2, clock, "two"), event(3, clock, "three")))
    joined(cam, C, events=(event(1, clock, "another one"),))
    assert details(fleet) == ["one", "two", "three", "another one"]


def test_a_start_under_the_same_numbering_counts_no_event_twice(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    first = (event(1, clock, "one"), event(2, clock, "two"))
    joined(cam, A, events=first, boot=A)
    again = cam.check_in(seq=9, numbering=A, boot=B, events=(*first, event(3, clock, "three")))
    assert again.json()["acked_event"] == 3
    assert details(fleet) == ["one", "two", "three"]


def test_windows_of_a_new_numbering_are_counted(fleet: Fleet, clock: Any) -> None:
    sketch = Sketch()
    sketch.add(1.0)
    window = MetricReport(1, "detector", "1.0.0", "score", clock(), clock(), sketch)
    cam = fleet.device()
    joined(cam, A, metrics=(window,))
    cam.check_in(report("1.0.0"), seq=2, numbering=A, metrics=(window,))
    joined(cam, B, metrics=(window,))
    found = fleet.operator.get("/api/v1/devices/cam-1/metrics").json()["metrics"]
    assert [m["count"] for m in found] == [2]


def test_a_count_without_room_keeps_no_later_event_out(fleet: Fleet, clock: Any) -> None:
    """As a database has it that an older, poisoned agent reported to."""
    cam = fleet.device()
    cam.check_in(events=(event(2**53 - 1, clock, "poison"),))
    cam.check_in(events=(event(7, clock, "after"),))
    assert details(fleet) == ["poison", "after"]


def test_a_report_for_another_fleet_is_told_the_name(fleet: Fleet) -> None:
    answer = fleet.device().check_in(fleet="evil")
    assert code_of(answer) == (403, "wrong_fleet")
    assert answer.json()["fleet"] == "test-fleet"
