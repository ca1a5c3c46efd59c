"""Two server processes at one broker: a device is called once, and still when one has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pilotwave_server.app import create_app
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.settings import Settings
from tests import mosquitto
from tests.conftest import FakeClock
from tests.server.device_api.test_push_mqtt import SERVER, USERS, broker, listening
from tests.server.fleet_fixtures import Fleet
from tests.servers import RunningServer, run_in_thread

__all__ = ["broker"]
pytestmark = [
    pytest.mark.needs("postgresql"),
    pytest.mark.skipif(mosquitto.program() is None, reason=mosquitto.ABSENT),
]

TRIES = 20


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


@pytest.fixture
def settings(settings: Settings, broker: mosquitto.Broker) -> Settings:
    given = {"mqtt_url": broker.url, "mqtt_username": SERVER, "mqtt_password": USERS[SERVER]}
    return settings.model_copy(update=given)


@pytest.fixture
def second(
    fleet: Fleet, settings: Settings, clock: FakeClock
) -> Iterator[tuple[RunningServer, ExitStack]]:
    """Another process on the same database and broker, the one that calls, and what ends it."""
    with ExitStack() as stack:
        for _ in range(TRIES):  # which one calls is chance
            app = create_app(settings, clock=clock)
            running = stack.enter_context(run_in_thread(app))
            if running.context.get(Heartbeat).fleet.first:
                break
            stack.close()
        yield running, stack


def test_a_device_is_called_once_and_still_when_a_process_has_ended(
    fleet: Fleet,
    server: RunningServer,
    second: tuple[RunningServer, ExitStack],
    broker: mosquitto.Broker,
    tmp_path: Path,
) -> None:
    other, ends = second
    both = [server.context.get(Heartbeat), other.context.get(Heartbeat)]
    for heartbeat in both:
        heartbeat.beat()
    assert [heartbeat.fleet.first for heartbeat in both] == [False, True]
    fleet.device("cam-1")
    fleet.group("all", "*")
    with listening(broker, "cam-1", tmp_path) as device:
        device.alive()
        assert device.is_quiet(), "one call to begin with"
        fleet.assign("all", "1.0.0")
        device.calls(1)
        assert device.is_quiet()
        ends.close()
        fleet.assign("all", "1.1.0")
        device.calls(1)
