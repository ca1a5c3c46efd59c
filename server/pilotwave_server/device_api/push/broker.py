"""Calls through an MQTT 5 broker, for fleets whose connections a broker shall hold.

A device that listens says so in a retained message, which the broker takes back by the device's
will when its connection dies; so the server knows whom to call, also after a restart. Each server
process says the same of itself, so that devices know whether anybody is there to call them. Every
process calls the devices that it thinks concerned; a device that is called twice polls once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pilotwave_protocol import names
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.push import (
    PRESENT,
    call_to_poll,
    poll_topic,
    presence_topic,
    server_topic,
)
from pilotwave_server.device_api.push.listeners import PushListeners
from pilotwave_server.errors import BadSetting, SetupError
from pilotwave_server.settings import Settings

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

KEEPALIVE_S = 60
LAST_RETRY_S = 30
EXPIRY_S = 600  # a call that the broker could not deliver by then is made up for by polling
MAX_QUEUED = 100_000
PORTS = {"mqtt": 1883, "mqtts": 8883}


class NoMqttClient(SetupError):
    """The setting PILOTWAVE_MQTT_URL wants a package that is not installed."""

    code: ClassVar[str] = "no_mqtt_client"


class MqttListener:
    """A device at the broker (`desk.Listener`). The broker knows its key, the server does not."""

    __slots__ = ("_publish", "digest", "name")
    generation: int | None = None

    def __init__(self, name: str, publish: Callable[[str, float], None]) -> None:
        self.name = name
        self.digest = ""
        self._publish = publish

    def call(self, within_s: float) -> None:
        """Publish a call to the device."""
        self._publish(self.name, within_s)

    def end(self) -> None:
        """Nothing to close: the channel is the broker's, and it is called no more."""


class Broker:
    """This process's connection to the broker, kept up by paho's own thread."""

    def __init__(
        self, desk: PushListeners, settings: Settings, *, fleet: Callable[[], str]
    ) -> None:
        """Raises `BadSetting` or `NoMqttClient`."""
        self.connected = False
        self._desk = desk
        self._fleet = fleet
        self._settings = settings
        self._host, self._port, self._tls = address(settings.mqtt_url)
        self._process = secrets.token_hex(4)
        self._client = self._make()

    def _make(self) -> Client:
        try:
            from paho.mqtt import client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise NoMqttClient(
                "PILOTWAVE_MQTT_URL is set and paho-mqtt is not installed: "
                "pip install 'pilotwave[mqtt]'"
            ) from None
        settings = self._settings
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"pilotwave-server-{self._process}",
            protocol=mqtt.MQTTv5,
        )
        if settings.mqtt_username:
            client.username_pw_set(settings.mqtt_username, settings.mqtt_password)
        if self._tls:
            cert = settings.mqtt_cert_file
            try:
                client.tls_set(
                    str(settings.mqtt_ca_file) if settings.mqtt_ca_file else None,
                    certfile=str(cert) if cert else None,
                )
            except (OSError, ValueError) as error:
                raise BadSetting(f"the MQTT certificates cannot be read: {error}") from error
        client.reconnect_delay_set(1, LAST_RETRY_S)
        client.max_queued_messages_set(MAX_QUEUED)
        client.max_inflight_messages_set(1000)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._heard
        return client

    # --- with the server

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect in the background, and again whenever the broker goes away."""
        self._loop = loop
        self._client.will_set(self._here, b"", qos=1, retain=True)
        self._client.connect_async(self._host, self._port, keepalive=KEEPALIVE_S, clean_start=True)
        self._client.loop_start()

    def stop(self) -> None:
        """Say goodbye, and leave."""
        connected, self.connected = self.connected, False
        if connected:
            said = self._client.publish(self._here, b"", qos=1, retain=True)
            try:
                said.wait_for_publish(2.0)
            except (RuntimeError, ValueError):
                log.warning("the broker was not told that this process ends")
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def _here(self) -> str:
        return server_topic(self._fleet(), self._process)

    # --- paho's thread

    def _connected(self, client: Client, data: Any, flags: Any, code: Any, more: Any) -> None:
        if code.is_failure:
            log.warning("the MQTT broker %s refuses this server: %s", self._host, code)
            return
        log.info("connected to the MQTT broker %s", self._host)
        self.connected = True
        self._loop.call_soon_threadsafe(self._desk.clear)
        client.subscribe(presence_topic(self._fleet(), "+"), qos=1)
        client.publish(self._here, PRESENT, qos=1, retain=True)

    def _disconnected(self, client: Client, data: Any, flags: Any, code: Any, more: Any) -> None:
        if self.connected:
            log.warning("the MQTT broker %s is gone: %s", self._host, code)
        self.connected = False

    def _heard(self, client: Client, data: Any, message: Any) -> None:
        device = message.topic.split("/")[3]
        try:
            names.check_device(device)
        except ProtocolError:
            return
        present = bool(message.payload)
        self._loop.call_soon_threadsafe(self._presence, device, present)

    # --- the event loop

    def _presence(self, device: str, present: bool) -> None:
        known = self._desk.listeners.get(device)
        if not present:
            if known is not None:
                self._desk.left(known)
        else:
            self._desk.arrived(MqttListener(device, self._publish), call=True)

    def _publish(self, device: str, within_s: float) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # untyped there
        properties.MessageExpiryInterval = EXPIRY_S
        call = call_to_poll(within_s)
        topic = poll_topic(self._fleet(), device)
        self._client.publish(topic, call, qos=1, properties=properties)


def address(url: str) -> tuple[str, int, bool]:
    """Host, port and whether by TLS, of a broker's URL; `BadSetting` for anything else."""
    try:
        found = urlsplit(url)
        port = found.port
    except ValueError:
        found, port = urlsplit(""), None
    whole = not (found.path.strip("/") or found.query or found.username)
    if found.scheme not in PORTS or not found.hostname or not whole:
        raise BadSetting("mqtt_url: expected mqtt://host:1883 or mqtts://host:8883")
    return found.hostname, port or PORTS[found.scheme], found.scheme == "mqtts"
