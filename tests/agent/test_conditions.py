"""When a device may change: each condition, each gate, windows over the nights that clocks jump."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pilotwave_agent.core.conditions import CHANGE, FETCH, hold
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_agent.work import Done, Job, work
from pilotwave_protocol.states import ModelState, Reason
from tests.agent.trees import tree
from tests.peers.device import Device
from tests.peers.registry import Registry, example
from tests.peers.simulated import SimulatedAgent, SimulatedClock

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
NIGHT = [{"cron": "0 2 * * *", "duration_s": 7200, "timezone": "device"}]


def world(moment: datetime = NOON, **more: Any) -> Environment:
    return Environment(moment.timestamp(), zone="Europe/Berlin", **more)


# conditions, the world, the gate, and what holds (None: nothing)
RULES = [
    ("a board without a battery is fed from outside", {"power": "external"}, {}, FETCH, None),
    (
        "on its battery",
        {"power": "external"},
        {"power": "battery"},
        FETCH,
        Reason.WAITING_POWER,
    ),
    ("charging", {"power": "external"}, {"power": "mains"}, CHANGE, None),
    (
        "the battery is low, even while it charges",
        {"battery_min": 50},
        {"battery": 45, "power": "mains"},
        FETCH,
        Reason.WAITING_BATTERY,
    ),
    ("the battery is just full enough", {"battery_min": 45}, {"battery": 45}, FETCH, None),
    ("no battery is no low battery", {"battery_min": 50}, {}, CHANGE, None),
    ("a modem", {"network": "unmetered"}, {"metered": True}, FETCH, Reason.WAITING_NETWORK),
    ("nobody knows", {"network": "unmetered"}, {}, FETCH, Reason.WAITING_NETWORK),
    ("a cable", {"network": "unmetered"}, {"metered": False}, FETCH, None),
    ("what is here needs no network", {"network": "unmetered"}, {"metered": True}, CHANGE, None),
    ("a full disk", {"disk_free_mb": 500}, {"disk_free_mb": 499}, FETCH, Reason.WAITING_DISK),
    ("room enough", {"disk_free_mb": 500}, {"disk_free_mb": 500}, FETCH, None),
    ("busy", {"idle": True}, {"busy": "it works"}, CHANGE, Reason.WAITING_IDLE),
    ("a busy device may fetch", {"idle": True}, {"busy": "it works"}, FETCH, None),
    ("idleness does not matter", {"idle": False}, {"busy": "it works"}, CHANGE, None),
    ("outside its window", {"windows": NIGHT}, {}, CHANGE, Reason.WAITING_WINDOW),
    ("files may come before the window", {"windows": NIGHT}, {}, FETCH, None),
    ("a newer server's word", {"moon": "full"}, {}, FETCH, Reason.WAITING_CONDITION),
    ("nonsense", {"battery_min": "much"}, {"battery": 3}, FETCH, Reason.WAITING_CONDITION),
    ("another kind of power", {"power": "solar"}, {}, FETCH, Reason.WAITING_CONDITION),
    (
        "a window that no one can read",
        {"windows": [{"cron": "never", "duration_s": 60}]},
        {},
        CHANGE,
        Reason.WAITING_CONDITION,
    ),
    (
        "a zone that is none",
        {"windows": [{"cron": "0 2 * * *", "duration_s": 60, "timezone": "Mars/Olympus"}]},
        {},
        CHANGE,
        Reason.WAITING_CONDITION,
    ),
]


@pytest.mark.parametrize(
    ("conditions", "around", "gate", "reason"), [r[1:] for r in RULES], ids=[r[0] for r in RULES]
)
def test_conditions(
    conditions: dict[str, Any], around: dict[str, Any], gate: str, reason: Reason | None
) -> None:
    found = hold(conditions, world(**around), gate)
    assert (found.reason if found else None) == reason
    assert found is None or 20 < len(found.sentence) <= 300


def moment(text: str, zone: str = "Europe/Berlin") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


# the moment, the window, and in how many seconds it opens (0: it is open)
WINDOWS = [
    ("the first second of it", "2026-11-25T02:00:00", "0 2 * * *", 3600, 0),
    ("the last second of it", "2026-11-25T02:59:59", "0 2 * * *", 3600, 0),
    ("over", "2026-11-25T03:00:00", "0 2 * * *", 3600, 23 * 3600),
    ("a second before", "2026-11-25T01:59:59", "0 2 * * *", 3600, 1),
    ("past midnight", "2026-11-26T00:30:00", "0 23 * * *", 7200, 0),
    ("over a weekend", "2026-11-29T12:00:00", "0 22 * * FRI", 48 * 3600, 0),
    # clocks go forward at 2:00 on 2026-03-29: what would begin at 2:30 begins at 3:00
    ("the missing hour begins late", "2026-03-29T01:30:00", "30 2 * * *", 3600, 1800),
    ("and lasts as long", "2026-03-29T03:59:00", "30 2 * * *", 3600, 0),
    ("and no longer", "2026-03-29T04:00:00", "30 2 * * *", 3600, 22.5 * 3600),
    # clocks go back at 3:00 on 2026-10-25: the night has an hour more
    ("a duration is time that passes", "2026-10-25T02:30:00", "0 1 * * *", 3 * 3600, 0),
    ("and ends an hour earlier by the clock", "2026-10-25T03:30:00", "0 1 * * *", 3 * 3600, None),
]


@pytest.mark.parametrize(
    ("now", "cron", "duration_s", "opens"), [w[1:] for w in WINDOWS], ids=[w[0] for w in WINDOWS]
)
def test_windows(now: str, cron: str, duration_s: int, opens: float | None) -> None:
    windows = {"windows": [{"cron": cron, "duration_s": duration_s, "timezone": "device"}]}
    found = hold(windows, world(moment(now)), CHANGE)
    if opens == 0:
        assert found is None
    else:
        assert found is not None
        assert opens is None or found.retry_s == opens


def test_the_second_pass_of_a_repeated_hour_is_later_than_the_first() -> None:
    windows = {"windows": [{"cron": "0 2 * * *", "duration_s": 3600, "timezone": "device"}]}
    first = moment("2026-10-25T02:30:00")
    assert hold(windows, world(first), CHANGE) is None
    second = first.replace(fold=1)
    assert second.timestamp() - first.timestamp() == 3600
    found = hold(windows, world(second), CHANGE)
    assert found is None or found.retry_s


def test_any_open_window_will_do_and_the_next_one_is_named() -> None:
    windows = [*NIGHT, {"cron": "0 18 * * *", "duration_s": 60, "timezone": "America/New_York"}]
    found = hold({"windows": windows}, world(), CHANGE)
    assert found
    assert found.retry_s == timedelta(hours=12).total_seconds()
    assert "2026-11-25 18:00 (America/New_York)" in found.sentence
    opened = moment("2026-11-26T00:00:30")
    assert hold({"windows": windows}, world(opened), CHANGE) is None


def test_a_device_lives_by_its_own_time_and_without_one_by_utc() -> None:
    at_three = datetime(2026, 11, 25, 3, 0, tzinfo=ZoneInfo("UTC"))
    tokyo = Environment(at_three.timestamp(), zone="Asia/Tokyo")  # noon there
    assert hold({"windows": NIGHT}, tokyo, CHANGE)
    assert hold({"windows": NIGHT}, Environment(at_three.timestamp()), CHANGE) is None
    lost = hold({"windows": NIGHT}, Environment(NOON.timestamp()), CHANGE)
    assert lost
    assert "does not know its time zone" in lost.sentence


# --- on a device


def work_in(device: Device, root: Path, **job: Any) -> Done:
    device.deliver()
    return work(device.config, Job(**{"token": "token", **job}), root=root)


def ordered(registry: Registry, **conditions: Any) -> None:
    entry = registry.publish("detector", "1.0.0", example("1.0.0"))
    registry.order(replace(entry, conditions=conditions))


def test_an_order_waits_for_power_says_so_and_goes_on_when_it_comes(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    ordered(registry, power="external", network="unmetered")
    root = tree(tmp_path, battery=80, status="Discharging")
    done = work_in(device, root, refresh=True)
    slot = device.slot()
    assert (slot.state, slot.reason) == (ModelState.FETCHING, Reason.WAITING_POWER)
    assert done.retry is None
    assert done.watch == {"power": "battery"}
    held = [e for e in device.state.events if e.reason == Reason.WAITING_POWER]
    assert [(e.kind, e.version) for e in held] == [("blocked", "1.0.0")]
    assert not any(r.startswith("GET /blobs") for r in registry.requests)
    again = work_in(device, root, refresh=True)
    assert not again.changed
    tree(tmp_path, battery=80, status="Charging")
    work_in(device, root)
    assert device.slot().state is ModelState.HEALTHY
    assert device.slot().reason is None


def test_a_window_holds_the_change_not_the_download(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    now = registry.now
    later = now + timedelta(hours=3)
    cron = f"{later.minute} {later.hour} * * *"
    ordered(registry, windows=[{"cron": cron, "duration_s": 600, "timezone": "UTC"}])
    done = work_in(device, tree(tmp_path), refresh=True)
    assert (device.slot().state, device.slot().reason) == (
        ModelState.STAGED,
        Reason.WAITING_WINDOW,
    )
    assert done.next_wake_s is None
    assert done.hold_ends_s is not None
    assert abs(done.hold_ends_s - 3 * 3600) < 120
    registry.order(registry.versions["detector", "1.0.0"])
    work_in(device, tree(tmp_path))
    assert device.slot().state is ModelState.HEALTHY


def test_the_way_back_waits_for_nothing(registry: Registry, device: Device, tmp_path: Path) -> None:
    first = registry.publish("detector", "1.0.0", example("1.0.0"))
    second = registry.publish("detector", "1.1.0", example("1.1.0"))
    registry.order(first)
    work_in(device, tree(tmp_path), refresh=True)
    device.set(probe=ProbeSettings("exec", ("false",), interval_s=0.1, failures=1))
    registry.order(replace(second, conditions={"power": "external", "idle": True}))
    device.set(probation_s=0.0)
    (device.config.data_dir / "busy").write_text("")
    work_in(device, tree(tmp_path))
    assert device.slot().reason == Reason.WAITING_IDLE
    (device.config.data_dir / "busy").unlink()
    work_in(device, tree(tmp_path))
    assert device.slot().state is ModelState.ROLLED_BACK
    assert device.current().startswith("1.0.0-")


def test_a_resident_agent_looks_again_when_it_is_awake_anyway(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    """What has not changed costs no process; what has is seen at the next poll."""
    registry.poll_s, registry.check_in_s = 300, 900
    ordered(registry, power="external")
    root = tree(tmp_path, battery=80)
    clock = SimulatedClock(registry.now.timestamp())
    agent = SimulatedAgent(device.config, device.config_path, clock, root)
    try:
        agent.live(3600)
        assert device.slot().reason == Reason.WAITING_POWER
        worked, woken = agent.worked, clock.wakeups
        agent.live(3 * 3600)
        assert agent.worked == worked
        assert clock.wakeups - woken < 3 * 3600 / 300 * 1.6  # polls, and check-ins between them
        tree(tmp_path, battery=80, status="Charging")
        agent.live(400)
        assert device.slot().state is ModelState.HEALTHY
    finally:
        agent.close()


def test_a_resident_agent_wakes_when_its_window_opens(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    registry.poll_s, registry.check_in_s = 86_000, 86_000
    opens = registry.now.replace(second=0) + timedelta(hours=3)
    cron = f"{opens.minute} {opens.hour} * * *"
    ordered(registry, windows=[{"cron": cron, "duration_s": 600, "timezone": "UTC"}])
    clock = SimulatedClock(registry.now.timestamp())
    agent = SimulatedAgent(device.config, device.config_path, clock, tree(tmp_path))
    try:
        agent.live((opens - registry.now).total_seconds() - 5)
        assert device.slot().reason == Reason.WAITING_WINDOW
        agent.live(20)
        assert device.slot().state is ModelState.HEALTHY
    finally:
        agent.close()
