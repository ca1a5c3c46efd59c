"""What a device remembers of its part in a group, as the file that it is kept in.

Once it has answered whose masks are to go, nothing else is left: no second answer can be made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any


class Phase(str, Enum):
    """How far a device has come, by what it has made last."""

    KEYS = "keys"
    SHARES = "shares"
    INPUT = "input"
    ANSWERED = "answered"


@dataclass(frozen=True)
class Held:
    """A member's two secrets, one share of each."""

    self_mask: bytes
    mask_key: bytes


@dataclass(frozen=True)
class MaskedState:
    """`ends` is when the plan's time is over, in seconds. `keys`, `shares` and `answer` are
    envelopes as they are sent; `members` are those of a whole group. `seed` is that of the self
    mask, `held` what this device keeps of each member's secrets, its own too; `together` are those
    between whom masks are."""

    phase: Phase
    model: str
    attempt: int
    ends: float
    keys: bytes = b""
    channel_key: bytes = b""
    mask_key: bytes = b""
    members: tuple[bytes, ...] = ()
    seed: bytes = b""
    shares: bytes = b""
    held: Mapping[str, Held] = field(default_factory=dict)
    together: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    answer: bytes = b""

    def to_bytes(self) -> bytes:
        """Write the file."""
        return json.dumps(_plain(self)).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> MaskedState:
        """Read the file, or raise `ValueError`."""
        try:
            plain = json.loads(raw)
            held = {
                name: Held(bytes.fromhex(own), bytes.fromhex(key))
                for name, (own, key) in plain.pop("held").items()
            }
            for name in ("keys", "channel_key", "mask_key", "seed", "shares", "answer"):
                plain[name] = bytes.fromhex(plain[name])
            plain["members"] = tuple(map(bytes.fromhex, plain["members"]))
            for name in ("together", "survivors"):
                plain[name] = tuple(plain[name])
            return replace(cls(**plain), held=held, phase=Phase(plain["phase"]))
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"expected the state of a masked round: {e}") from e


def _plain(state: MaskedState) -> dict[str, Any]:
    plain = dict(vars(state))
    for name, value in plain.items():
        if isinstance(value, bytes):
            plain[name] = value.hex()
    plain["phase"] = state.phase.value
    plain["members"] = [one.hex() for one in state.members]
    plain["held"] = {n: [h.self_mask.hex(), h.mask_key.hex()] for n, h in state.held.items()}
    return plain
