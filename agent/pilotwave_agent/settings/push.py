"""`[push]` of the settings file: how this device is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pilotwave_protocol.fields import Fields

CHANNELS = ("off", "websocket", "mqtt")
PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class PushSettings:
    """The channel, and for MQTT the broker: its URL, the name (the device's by default) and the
    file with the password, or a TLS certificate with its key; `ca_file` vouches for the broker."""

    channel: str = "off"
    url: str = ""
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def read_push(f: Fields, base: Path) -> PushSettings:
    """Read the section, or raise what `f` raises; relative paths are taken from `base`."""

    def path(key: str) -> str:
        found = f.text(key, limit=4096, default="")
        return str(base / os.path.expanduser(found)) if found else ""

    channel = f.text("channel", default="off")
    if channel not in CHANNELS:
        raise f.fail("channel", f"one of {', '.join(CHANNELS)}", channel)
    push = PushSettings(
        channel=channel,
        url=f.text("url", default=""),
        username=f.text("username", default=""),
        password_file=path("password_file"),
        ca_file=path("ca_file"),
        cert_file=path("cert_file"),
        key_file=path("key_file"),
    )
    f.done()
    if channel == "mqtt" and not is_broker(push.url):
        raise f.fail("url", "mqtt://host:1883 or mqtts://host:8883", push.url)
    return push


def is_broker(url: str) -> bool:
    """Say whether a URL is a broker's and holds no secret."""
    try:
        found = urlsplit(url)
        plain = not (found.path.strip("/") or found.query or found.username)
        return found.scheme in PORTS and bool(found.hostname) and found.port != 0 and plain
    except ValueError:
        return False
