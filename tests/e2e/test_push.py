"""Push through a real broker to a whole agent: at once, cut off, and back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import mosquitto
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.needs("onnxruntime"),
    pytest.mark.skipif(mosquitto.program() is None, reason=mosquitto.ABSENT),
]

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
SERVER = "pilotwave-server"
PUSH = """
[push]
channel = "mqtt"
url = "{url}"
password_file = "{secret}"
"""


def until_called(fleet: FleetOfOne) -> None:
    wait_until(lambda: fleet.device()["push"] == "mqtt", lambda: str(fleet.device()))


def test_a_word_through_the_broker_comes_at_once_and_without_it_by_polling(tmp_path: Path) -> None:
    users = {SERVER: "server", "board": "device"}
    secret = tmp_path / "secret"
    secret.write_text("device\n")
    (tmp_path / "one").mkdir()
    with mosquitto.running(tmp_path / "broker", users, fleet="one") as broker:
        server = {
            "PILOTWAVE_POLL_INTERVAL_S": "5",
            "PILOTWAVE_PUSH_POLL_INTERVAL_S": "3600",
            "PILOTWAVE_MQTT_URL": broker.url,
            "PILOTWAVE_MQTT_USERNAME": SERVER,
            "PILOTWAVE_MQTT_PASSWORD": "server",
        }
        settings = PUSH.format(url=broker.url, secret=secret)
        with fleet_of_one(tmp_path / "one", server=server, settings=settings) as fleet:
            fleet.stage.pilotwave("models", "create", "net", "--publisher", "keys/publisher.pem")
            for version in ("1.0.0", "1.1.0"):
                fleet.publish("net", version, DIGITS / version)
            until_called(fleet)
            time.sleep(6)  # the polls before it was called are over; the next is an hour away
            fleet.assign("net", "1.0.0")
            fleet.until("net", "1.0.0", "healthy")
            broker.kill()
            fleet.assign("net", "1.1.0")
            fleet.until("net", "1.1.0", "healthy")
            broker.start()
            until_called(fleet)
