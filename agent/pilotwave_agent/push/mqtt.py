"""A connection to an MQTT 5 broker, on one socket that the agent's own loop watches.

The device hears its own topic and which server processes are there; it says, retained, that it
listens, and the broker takes that back by the device's will when the connection dies.
"""

from __future__ import annotations

import contextlib
import select
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from pilotwave_agent.net.authorities import tls_context
from pilotwave_agent.push.channel import PONG_S, Lost
from pilotwave_agent.settings.push import PORTS, PushSettings
from pilotwave_protocol.push import (
    MAX_CALL_BYTES,
    PRESENT,
    poll_topic,
    presence_topic,
    server_topic,
)

_MOST_SERVERS = 256
_MOST_PACKETS = 64


class MqttChannel:
    """A connection to a broker (`channel.PushChannel`). Alive while it is heard and a server
    is there."""

    def __init__(
        self, settings: PushSettings, fleet: str, device: str, *, timeout_s: float, ping_s: float
    ) -> None:
        """Connect, within `timeout_s`; the broker's answer comes later. Raises `Lost`."""
        self._ping_s = ping_s
        self._heard: float | None = None
        self._calls: list[bytes] = []
        self._servers: set[str] = set()
        self._subscribed = False
        self._trouble = ""
        self._poll_topic = poll_topic(fleet, device)
        self._server_topic = server_topic(fleet, "+")
        self._presence = presence_topic(fleet, device)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"pilotwave-{fleet}-{device}",
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.connect_timeout = timeout_s
        self._client.will_set(self._presence, b"", qos=1, retain=True)
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._granted
        self._client.on_message = self._message
        found = urlsplit(settings.url)
        try:
            self._identify(settings, device, tls=found.scheme == "mqtts")
            port = found.port or PORTS[found.scheme]
            self._client.connect(found.hostname or "", port, max(int(ping_s), 1), clean_start=True)
        except (OSError, ValueError) as e:
            raise Lost(f"no connection to the broker: {e}") from e

    def _identify(self, settings: PushSettings, device: str, *, tls: bool) -> None:
        if settings.password_file:
            password = Path(settings.password_file).read_text(encoding="utf-8").strip()
            self._client.username_pw_set(settings.username or device, password)
        if tls:
            self._client.tls_set_context(_context(settings))

    @property
    def alive(self) -> bool:
        """Whether the broker lets this device listen and a server is there to call it."""
        return self._subscribed and bool(self._servers)

    def fileno(self) -> int:
        return int(self._socket.fileno())

    @property
    def _socket(self) -> Any:
        found = self._client.socket()
        if found is None:
            raise Lost(self._trouble or "the broker has closed the connection")
        return found

    # --- what the broker says

    def _connected(self, client: Any, data: Any, flags: Any, code: Any, more: Any) -> None:
        if code.is_failure:
            self._trouble = f"the broker refuses this device: {code}"
            return
        client.subscribe([(self._poll_topic, 1), (self._server_topic, 1)])

    def _granted(self, client: Any, data: Any, number: Any, codes: Any, more: Any) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            self._trouble = f"the broker does not let this device listen: {refused[0]}"
            return
        self._subscribed = True
        client.publish(self._presence, PRESENT, qos=1, retain=True)

    def _message(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == self._poll_topic:
            if len(message.payload) <= MAX_CALL_BYTES:
                self._calls.append(bytes(message.payload))
            return
        if not message.payload:
            self._servers.discard(message.topic)
        elif len(self._servers) < _MOST_SERVERS:
            self._servers.add(message.topic)

    # --- what the keeper asks

    def hear(self, now: float) -> list[bytes]:
        for _ in range(_MOST_PACKETS):
            sock = self._socket
            pending = isinstance(sock, ssl.SSLSocket) and sock.pending()
            if not (pending or select.select([sock], [], [], 0)[0]):
                break
            self._heard = now
            self._check(self._client.loop_read(1))
        if self._client.want_write():
            self._check(self._client.loop_write())
        if self._trouble:
            raise Lost(self._trouble)
        calls, self._calls = self._calls, []
        return calls

    def tend(self, now: float) -> float:
        if self._heard is None:
            self._heard = now
        overdue = self._heard + self._ping_s + PONG_S
        if now >= overdue:
            raise Lost("the broker does not answer", silent=True)
        if not self._subscribed and now >= self._heard + PONG_S:
            raise Lost("the broker does not say whether this device may listen")
        self._check(self._client.loop_misc())
        self.fileno()  # raises where paho has closed the socket
        if not self._subscribed:
            return self._heard + PONG_S
        # a little late, when paho's own count has ended; brokers wait half as long again
        ping_at = self._heard + self._ping_s + 0.1
        return ping_at if now < ping_at else overdue

    def _check(self, code: MQTTErrorCode) -> None:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Lost(self._trouble or f"the connection to the broker broke: {code.name}")

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._subscribed:
                self._client.publish(self._presence, b"", qos=0, retain=True)
            self._client.disconnect()


def _context(settings: PushSettings) -> ssl.SSLContext:
    context = tls_context(settings.ca_file)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    return context
