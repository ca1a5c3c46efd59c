"""Calls through a real Mosquitto, by the rules of access that the docs give, and cut off."""

from __future__ import annotations

import contextlib
import queue
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from pilotwave_agent.push.channel import Lost
from pilotwave_agent.push.mqtt import MqttChannel
from pilotwave_agent.settings.push import PushSettings
from pilotwave_protocol.push import poll_topic, presence_topic, server_topic
from pilotwave_server.context import Context
from pilotwave_server.device_api.push import broker as brokers
from pilotwave_server.device_api.push.setup import Push
from pilotwave_server.errors import BadSetting
from pilotwave_server.settings import Settings
from tests import mosquitto
from tests.mosquitto import Broker
from tests.server.fleet_fixtures import Fleet

pytestmark = pytest.mark.skipif(mosquitto.program() is None, reason=mosquitto.ABSENT)
FLEET = "test-fleet"
SERVER = "pilotwave-server"
USERS = {SERVER: "s3", "cam-1": "c1", "cam-2": "c2"}
PATIENCE_S = 40.0
QUIET_S = 0.7


@pytest.fixture
def database_kind() -> str:
    """What is tried here has nothing to do with the database."""
    return "sqlite"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with mosquitto.running(tmp_path / "broker", USERS, fleet=FLEET) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, broker: Broker) -> Settings:
    given = {"mqtt_url": broker.url, "mqtt_username": SERVER, "mqtt_password": USERS[SERVER]}
    return settings.model_copy(update=given)


class Listening:
    """A device's own line, which is looked after as the agent does."""

    def __init__(self, broker: Broker, device: str, folder: Path, **given: Any) -> None:
        secret = folder / f"{device}.password"
        secret.write_text(USERS.get(device, "wrong") + "\n")
        settings = PushSettings("mqtt", broker.url, password_file=str(secret), **given)
        self.line = MqttChannel(settings, FLEET, device, timeout_s=10.0, ping_s=240.0)

    def until(self, true: Callable[[], object], what: str) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < ends, f"waited for: {what}"
            time.sleep(0.02)

    def calls(self, count: int) -> list[bytes]:
        """Wait for calls."""
        found: list[bytes] = []

        def came() -> bool:
            found.extend(self._hear())
            return len(found) >= count

        self.until(came, f"{count} calls; {found} came")
        return found

    def alive(self) -> Listening:
        """Wait until it is called if there is something, and has been called to begin with."""
        self.calls(1)
        assert self.line.alive
        return self

    def is_quiet(self) -> bool:
        ends = time.monotonic() + QUIET_S
        while time.monotonic() < ends:
            if self._hear():
                return False
            time.sleep(0.02)
        return True

    def lost(self) -> str:
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            try:
                self._hear()
            except Lost as e:
                return str(e)
            time.sleep(0.02)
        raise AssertionError("the line still lives")

    def _hear(self) -> list[bytes]:
        calls = self.line.hear(time.monotonic())
        self.line.tend(time.monotonic())
        return calls


@contextlib.contextmanager
def listening(broker: Broker, device: str, folder: Path, **given: Any) -> Iterator[Listening]:
    made = Listening(broker, device, folder, **given)
    try:
        yield made
    finally:
        made.line.close()


@contextlib.contextmanager
def stranger(broker: Broker, user: str) -> Iterator[tuple[mqtt.Client, queue.Queue[Any]]]:
    """A client of anyone's make who hears what the broker lets that user hear."""
    heard: queue.Queue[Any] = queue.Queue()
    ready: queue.Queue[bool] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.username_pw_set(user, USERS[user])
    client.on_message = lambda _client, _data, message: heard.put(message)
    client.on_connect = lambda one, *_rest: one.subscribe([("pilotwave/#", 1), ("#", 1)])
    client.on_subscribe = lambda *_rest: ready.put(True)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    assert ready.get(timeout=PATIENCE_S)
    try:
        yield client, heard
    finally:
        client.disconnect()
        client.loop_stop()


def publish(client: mqtt.Client, topic: str, payload: bytes, *, retain: bool = False) -> None:
    client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)


def test_a_change_calls_the_devices_that_it_concerns_and_no_other(
    fleet: Fleet, broker: Broker, tmp_path: Path
) -> None:
    for number, site in ((1, "berlin"), (2, "paris")):
        fleet.device(f"cam-{number}", site=site)
    fleet.group("berlin", "site=berlin")
    with (
        listening(broker, "cam-1", tmp_path) as near,
        listening(broker, "cam-2", tmp_path) as far,
    ):
        near.alive()
        far.alive()
        assert fleet.operator.get("/api/v1/devices/cam-1").json()["push"] == "mqtt"
        fleet.assign("berlin", "1.0.0")
        assert near.calls(1) == [b"poll 0.00"]
        assert far.is_quiet()


def test_the_rules_let_a_device_hear_its_own_topic_and_say_nothing_else(
    fleet: Fleet, broker: Broker, tmp_path: Path
) -> None:
    fleet.device("cam-1")
    fleet.group("all", "*")
    with (
        listening(broker, "cam-1", tmp_path) as mine,
        stranger(broker, "cam-2") as (client, heard),
    ):
        mine.alive()
        publish(client, poll_topic(FLEET, "cam-1"), b"poll 0.00")
        publish(client, presence_topic(FLEET, "cam-1"), b"", retain=True)
        publish(client, server_topic(FLEET, "me"), b"1", retain=True)
        assert mine.is_quiet(), "another device's call came through"
        fleet.assign("all", "1.0.0")
        assert mine.calls(1) == [b"poll 0.00"]
        time.sleep(QUIET_S)
        topics = {heard.get().topic for _ in range(heard.qsize())}
        assert topics
        assert all(topic.startswith(f"pilotwave/{FLEET}/servers/") for topic in topics)
        assert server_topic(FLEET, "me") not in topics
        # its own it may
        publish(client, presence_topic(FLEET, "cam-2"), b"1", retain=True)


def test_forged_and_replayed_messages_are_calls_or_nothing(
    fleet: Fleet, broker: Broker, tmp_path: Path
) -> None:
    """By one who has the server's password at the broker: he gets no more than a poll."""
    fleet.device("cam-1")
    with (
        listening(broker, "cam-1", tmp_path) as mine,
        stranger(broker, SERVER) as (client, _),
    ):
        mine.alive()
        topic = poll_topic(FLEET, "cam-1")
        for payload in (b"poll 0.00", b"poll 0.00", b"install 9.9.9", b"\xff" * 60):
            publish(client, topic, payload)
        publish(client, topic, b"x" * 100_000)
        assert mine.calls(4) == [b"poll 0.00", b"poll 0.00", b"install 9.9.9", b"\xff" * 60]
        assert mine.is_quiet()
        assert mine.line.alive


def test_a_presence_that_means_nothing_does_no_harm(
    fleet: Fleet, broker: Broker, context: Context
) -> None:
    fleet.device("cam-1")
    fleet.group("all", "*")
    with stranger(broker, SERVER):
        pass
    users = ("no-such-device", "Bad Name", "x" * 500, "cam-1")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    with free_for_all(broker):
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        for user in users:
            publish(client, presence_topic(FLEET, user), b"1", retain=True)
        desk = context.get(Push).desks["mqtt"]
        ends = time.monotonic() + PATIENCE_S
        while set(desk.listeners) != {"cam-1"}:
            assert time.monotonic() < ends, list(desk.listeners)
            time.sleep(0.05)
        fleet.assign("all", "1.0.0")
        client.disconnect()
        client.loop_stop()


@contextlib.contextmanager
def free_for_all(broker: Broker) -> Iterator[None]:
    """Start the broker anew without any rules."""
    broker.kill()
    conf = broker.folder / "mosquitto.conf"
    conf.write_text(f"user root\nlistener {broker.port} 127.0.0.1\nallow_anonymous true\n")
    broker.start()
    yield


def test_who_has_no_password_is_told_so(broker: Broker, tmp_path: Path) -> None:
    with listening(broker, "cam-9", tmp_path) as mine:
        assert "refuses this device" in mine.lost()


def test_a_broker_that_is_cut_off_and_comes_back(
    fleet: Fleet, broker: Broker, context: Context, tmp_path: Path
) -> None:
    cam = fleet.device("cam-1")
    fleet.group("all", "*")
    link = context.get(Push).broker
    assert link is not None
    with listening(broker, "cam-1", tmp_path) as mine:
        mine.alive()
        broker.kill()
        assert mine.lost()
    fleet.assign("all", "1.0.0")
    assert cam.poll().status_code == 200, "polling goes on, and the server does not wait"
    broker.start()
    with listening(broker, "cam-1", tmp_path) as mine:
        mine.alive()
        fleet.assign("all", "1.1.0")
        assert mine.calls(1) == [b"poll 0.00"]


def test_devices_know_when_no_server_is_there_to_call_them(
    published: Any, settings: Settings, broker: Broker, tmp_path: Path
) -> None:
    from pilotwave_server.app import create_app
    from tests.servers import run_in_thread

    with listening(broker, "cam-1", tmp_path) as mine:
        with run_in_thread(create_app(settings)):
            mine.until(lambda: mine._hear() or mine.line.alive, "a server")
        mine.until(lambda: mine._hear() or not mine.line.alive, "no server")


def test_a_server_without_its_broker_starts_and_answers(
    fleet: Fleet, broker: Broker, settings: Settings
) -> None:
    from pilotwave_server.app import create_app
    from tests.servers import run_in_thread

    broker.kill()
    with run_in_thread(create_app(settings)) as second:
        assert fleet.operator.get(f"{second.url}/api/v1/devices").status_code == 200


@pytest.mark.parametrize(
    "url", ["http://broker", "mqtt://", "mqtt://me:pw@broker", "mqtt://b:99999", "mqtt://b/topic"]
)
def test_a_brokers_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(BadSetting, match="mqtt://host:1883"):
        brokers.address(url)


# paho leaves the socket of a refused handshake to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_certificates_instead_of_passwords(
    published: Any, settings: Settings, tmp_path: Path
) -> None:
    from pilotwave_server.app import create_app
    from tests.servers import run_in_thread

    certs = {name: certificate(tmp_path, name) for name in ("127.0.0.1", SERVER, "cam-1", "cam-2")}
    ca, (cert, key) = tmp_path / "ca.crt", certs["127.0.0.1"]
    with mosquitto.running(tmp_path / "tls", {}, fleet=FLEET, tls=(ca, cert, key)) as broker:
        both = tmp_path / "server.pem"
        both.write_bytes(b"".join(path.read_bytes() for path in certs[SERVER]))
        given = {"mqtt_url": broker.url, "mqtt_username": "", "mqtt_ca_file": ca}
        with run_in_thread(
            create_app(settings.model_copy(update={**given, "mqtt_cert_file": both}))
        ):
            own = PushSettings(
                "mqtt",
                broker.url,
                ca_file=str(ca),
                cert_file=str(certs["cam-1"][0]),
                key_file=str(certs["cam-1"][1]),
            )
            mine = Listening.__new__(Listening)
            mine.line = MqttChannel(own, FLEET, "cam-1", timeout_s=10.0, ping_s=240.0)
            mine.until(lambda: mine._hear() or mine.line.alive, "a server over TLS")
            mine.line.close()
        bare = PushSettings("mqtt", broker.url, ca_file=str(ca))
        assert refused(bare), "a device without a certificate"
        assert "CERTIFICATE_VERIFY_FAILED" in refused(PushSettings("mqtt", broker.url))


def refused(settings: PushSettings) -> str:
    made = Listening.__new__(Listening)
    try:
        made.line = MqttChannel(settings, FLEET, "cam-1", timeout_s=10.0, ping_s=240.0)
    except Lost as e:
        return str(e)
    with closing(made.line):
        return made.lost()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of the folder's authority, for a common name; and its key."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)

    ca, ca_key = folder / "ca.crt", folder / "ca.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    if not ca.exists():
        subject = ("-subj", "/CN=test authority", "-days", "2", "-keyout", str(ca_key))
        openssl("req", "-x509", *curve, *subject, "-out", str(ca))
    cert, key, wish = (folder / f"{name}.{end}" for end in ("crt", "key", "csr"))
    openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(wish))
    names = folder / f"{name}.ext"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    by = ("-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", str(wish), *by, "-extfile", str(names), "-out", str(cert))
    return cert, key
