"""The device that takes part in training plans: its files, settings, key and line."""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.identity import Identity
from pilotwave_agent.net.http import Channel
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import PilotwaveError


class CannotTakePart(PilotwaveError):
    """This device answers nothing to a plan, for the reason that it says."""

    code = "cannot_take_part"


@dataclass(frozen=True)
class Device:
    """One device's files, settings and line to its server."""

    config: Config
    layout: Layout
    who: Identity
    disk: Disk
    channel: Channel
    token: str
