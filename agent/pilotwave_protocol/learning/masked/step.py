"""What the server waits for from a device in a masked round. It is not signed: it can make a group
fail, and a device does nothing by it that its own checks do not allow."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadMessage
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.learning.masked.messages import MAX_MESSAGE_BYTES, MOST_ATTEMPTS
from pilotwave_protocol.learning.privacy import MOST_GROUP

MAX_STEP_BYTES = 2 * MOST_GROUP * MAX_MESSAGE_BYTES


class Wants(str, Enum):
    """What a device is to send next, or how it stands. `lost`: the group failed, or went on without
    this device, which may join one other. `over`: nothing any more."""

    KEYS = "keys"
    SHARES = "shares"
    INPUT = "input"
    ANSWER = "answer"
    WAIT = "wait"
    LOST = "lost"
    OVER = "over"


@dataclass(frozen=True)
class Step:
    """`attempt` is the one that this is about; `members` come with `shares`, `boxes` (what each
    other member that gave shares sent) with `input`, `survivors` with `answer`."""

    wants: Wants
    attempt: int = 1
    members: tuple[bytes, ...] = ()
    boxes: Mapping[str, bytes] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """What is written as JSON."""
        return {
            "wants": self.wants.value,
            "attempt": self.attempt,
            "members": [_base64(one) for one in self.members],
            "boxes": {name: _base64(one) for name, one in self.boxes.items()},
            "survivors": list(self.survivors),
        }


def parse_step(raw: bytes) -> Step:
    """Read the server's answer, or raise `BadMessage`."""
    try:
        f = Fields(strictjson.loads(raw, max_bytes=MAX_STEP_BYTES, max_depth=4), "", BadMessage)
    except BadJson as e:
        raise BadMessage(f"reply: {e}") from e
    length = 3 * MAX_MESSAGE_BYTES
    boxes = f.text_map("boxes", limit=MOST_GROUP, length=length)
    survivors = f.texts("survivors", limit=MOST_GROUP, length=64, default=[])
    return Step(
        f.one_of("wants", Wants),
        f.integer("attempt", low=1, high=MOST_ATTEMPTS),
        tuple(map(_bytes, f.texts("members", limit=MOST_GROUP, length=length, default=[]))),
        {names.check_device(name): _bytes(text) for name, text in boxes.items()},
        tuple(names.check_device(name) for name in survivors),
    )


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as e:
        raise BadMessage("expected base64 text") from e
