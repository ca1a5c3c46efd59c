"""The device that takes part in training plans: its files, settings, key and line."""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.identity import Identity
from pilotwave_agent.net.http import Channel
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.learning.decline import Why, step_below

LOCK_WAIT_S = 60.0


class CannotTakePart(PilotwaveError):
    """This device answers nothing to a plan, for the reason that it says: in a sentence for its
    owner, and in a word for the server."""

    code = "cannot_take_part"

    def __init__(
        self, sentence: str, why: Why = Why.PLAN_NOT_BELIEVED, examples: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.why = why
        self.examples = None if examples is None else step_below(examples)


@dataclass(frozen=True)
class Device:
    """One device's files, settings and line to its server."""

    config: Config
    layout: Layout
    who: Identity
    disk: Disk
    channel: Channel
    token: str
