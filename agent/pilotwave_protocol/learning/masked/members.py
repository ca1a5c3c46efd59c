"""A group as its members know it: the signed keys of each, checked, in the order of their names.

Whether a member is a device at all nobody can tell from its keys: who lists the members could have
made them (docs/learning.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked.messages import (
    MASKED_TYPE,
    MAX_MESSAGE_BYTES,
    Answer,
    Keys,
    MaskedInput,
    Message,
    Shares,
    parse_message,
)


@dataclass(frozen=True)
class Member:
    """Keys that were signed by the device key which is in them. Only `verified_keys` makes one."""

    keys: Keys
    envelope: bytes

    @property
    def name(self) -> str:
        return self.keys.device


@dataclass(frozen=True)
class Members:
    """A whole group; a member's number is that of its shares, from 1. `verified_members` makes it,
    or who has verified each by its own register."""

    of: tuple[Member, ...]
    digest: str

    @classmethod
    def listed(cls, members: Iterable[Member]) -> Members:
        """Put members in their order."""
        of = tuple(sorted(members, key=lambda member: member.name))
        return cls(of, sha256_hex(b"\n".join(member.envelope for member in of)))

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.of]

    def __getitem__(self, name: str) -> Member:
        found = next((member for member in self.of if member.name == name), None)
        if found is None:
            raise BadMessage(f"{name} is no member of the group {self.digest[:12]}…")
        return found

    def number(self, name: str) -> int:
        """The number of a member's shares."""
        return self.of.index(self[name]) + 1

    def read(self, envelope: bytes, sender: str) -> Shares | MaskedInput | Answer:
        """Read what a member signed in this group, or raise a `ProtocolError`."""
        found = parse_message(_opened(envelope, self[sender].keys.key))
        if isinstance(found, Keys) or (found.device, found.group) != (sender, self.digest):
            raise BadMessage(f"expected what {sender} says in the group {self.digest[:12]}…")
        return found


def verified_keys(envelope: bytes) -> Member:
    """Read keys that the device key in them has signed, or raise a `ProtocolError`."""
    claimed = dsse.peek_unverified(
        envelope, payload_type=MASKED_TYPE, max_bytes=2 * MAX_MESSAGE_BYTES
    )
    found = _keys(parse_message(claimed.payload))
    _opened(envelope, found.key)
    return Member(found, envelope)


def verified_members(envelopes: Sequence[bytes], own: Member, *, count: int) -> Members:
    """Check a list of members as one of them: all are of one round, each is another, one is `own`.

    Raises a `ProtocolError`.
    """
    if len(envelopes) != count:
        raise BadMessage(f"expected a group of {count}, as the plan says; got {len(envelopes)}")
    members = [verified_keys(envelope) for envelope in envelopes]
    if own.envelope not in envelopes:
        raise BadMessage("expected a group with the keys that this device has sent")
    for member in members:
        if _round(member.keys) != _round(own.keys):
            raise BadMessage(f"{member.name}: expected keys for this round of this plan")
    for what in ("device", "key", "channel", "mask"):
        if len({getattr(member.keys, what) for member in members}) < count:
            raise BadMessage(f"expected {count} devices; some have the same {what}")
    if len({key for m in members for key in (m.keys.channel, m.keys.mask)}) < 2 * count:
        raise BadMessage("expected keys of one use each")
    return Members.listed(members)


def _round(keys: Keys) -> tuple[str, str, str, int]:
    return keys.fleet, keys.model, keys.plan, keys.round


def _keys(message: Message) -> Keys:
    if not isinstance(message, Keys):
        raise BadMessage("expected the keys of a member")
    return message


def _opened(envelope: bytes, public: str) -> bytes:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except ValueError as e:
        raise BadMessage("expected a device key as 64 hex digits") from e
    keys = {dsse.keyid(key): key}
    return dsse.open_envelope(
        envelope, payload_type=MASKED_TYPE, keys=keys, max_bytes=2 * MAX_MESSAGE_BYTES
    )
