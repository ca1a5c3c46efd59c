"""What a device of a group says, each an envelope signed by the key of that device.

    keys    I take part in this round of this plan, with these two X25519 keys
    shares  for each other member of the group a sealed box: shares of my two secrets
    input   my numbers under masks, in the group of these members (the numbers follow)
    answer  for each member a share: of its own mask, or of its mask key where it left

`group` is the digest of all keys of a group (`members`), so all but `keys` is of one group alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadMessage
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.learning.masked.shamir import SHARE_BYTES
from pilotwave_protocol.learning.plan import MAX_ROUNDS
from pilotwave_protocol.learning.privacy import MOST_GROUP

MASKED_TYPE = "application/vnd.pilotwave.masked.v1+json"
MAX_MESSAGE_BYTES = 8 << 10
MAX_MASKED_BYTES = 16 << 20
"""More than the numbers of the largest plan, at eight bytes each."""
MOST_ATTEMPTS = 2
"""A device whose group was lost may join one other."""
_BOX_BYTES = 32 + 2 * SHARE_BYTES + 16
"""A sender's key, two shares, a tag."""
_KEYS, _SHARES, _INPUT, _ANSWER = (
    f"pilotwave/masked-{kind}/1" for kind in ("keys", "shares", "input", "answer")
)


@dataclass(frozen=True)
class Keys:
    """`key` is the device's own public key, `channel` what boxes are sealed for, `mask` what the
    masks that it has in common with others are made of; 64 hex digits each."""

    fleet: str
    device: str
    model: str
    plan: str
    round: int
    attempt: int
    key: str
    channel: str
    mask: str

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return _written(_KEYS, self)


@dataclass(frozen=True)
class Shares:
    """`boxes`, as hex, by the device that each is sealed for."""

    device: str
    group: str
    boxes: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return _written(_SHARES, self)

    def box(self, device: str) -> bytes:
        """The box for one device, or `BadMessage`."""
        if device not in self.boxes:
            raise BadMessage(f"expected a box for {device} from {self.device}")
        return bytes.fromhex(self.boxes[device])


@dataclass(frozen=True)
class MaskedInput:
    """`together` are the members that gave shares: masks are between them. `numbers` is the digest
    of the `size` bytes that follow."""

    device: str
    group: str
    together: tuple[str, ...]
    numbers: str
    size: int

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return _written(_INPUT, self)


@dataclass(frozen=True)
class Answer:
    """Shares as hex, by the member whose secret they are of: one for each, in one of the two."""

    device: str
    group: str
    self_masks: Mapping[str, str]
    mask_keys: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return _written(_ANSWER, self)


Message = Keys | Shares | MaskedInput | Answer


def parse_message(payload: bytes) -> Message:
    """Read a signed payload, or raise `BadMessage`."""
    try:
        found = strictjson.loads(payload, max_bytes=MAX_MESSAGE_BYTES, max_depth=4)
    except BadJson as e:
        raise BadMessage(f"message: {e}") from e
    f = Fields(found, "", BadMessage)
    read = _READERS.get(f.text("schema"))
    if read is None:
        raise f.fail("schema", f"one of {', '.join(_READERS)}", f.raw("schema"))
    message = read(f)
    f.done()
    return message


def join_message(envelope: bytes, numbers: bytes = b"") -> bytes:
    """Write a message as it is sent; numbers follow an input alone."""
    return envelope + b"\n" + numbers


def split_message(raw: bytes) -> tuple[bytes, bytes]:
    """Return the envelope of a message, and its numbers."""
    envelope, _, numbers = raw.partition(b"\n")
    return envelope, numbers


def _written(schema: str, message: Message) -> bytes:
    return strictjson.dumps({"schema": schema, **vars(message)})


def _keys(f: Fields) -> Keys:
    return Keys(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        model=f.named("model", names.check_model),
        plan=f.named("plan", names.check_sha256),
        round=f.integer("round", low=1, high=MAX_ROUNDS),
        attempt=f.integer("attempt", low=1, high=MOST_ATTEMPTS),
        key=_hex(f, "key", 32),
        channel=_hex(f, "channel", 32),
        mask=_hex(f, "mask", 32),
    )


def _shares(f: Fields) -> Shares:
    device, group = _of(f)
    boxes = _by_device(f, "boxes", lambda text: _is_hex(text, _BOX_BYTES))
    return Shares(device, group, boxes)


def _input(f: Fields) -> MaskedInput:
    device, group = _of(f)
    together = f.texts("together", limit=MOST_GROUP, length=64)
    numbers = f.named("numbers", names.check_sha256)
    size = f.integer("size", low=4, high=MAX_MASKED_BYTES)
    return MaskedInput(device, group, tuple(together), numbers, size)


def _answer(f: Fields) -> Answer:
    device, group = _of(f)

    def fits(text: str) -> bool:
        return _is_hex(text, SHARE_BYTES)

    return Answer(
        device, group, _by_device(f, "self_masks", fits), _by_device(f, "mask_keys", fits)
    )


def _of(f: Fields) -> tuple[str, str]:
    return f.named("device", names.check_device), f.named("group", names.check_sha256)


def _by_device(f: Fields, key: str, fits: Callable[[str], bool]) -> dict[str, str]:
    found = f.text_map(key, limit=MOST_GROUP)
    for name, text in found.items():
        if not fits(text):
            raise f.fail(key, "what a member's secret takes", {name: text})
    return found


def _hex(f: Fields, key: str, size: int) -> str:
    text = f.text(key, limit=2 * size)
    if not _is_hex(text, size):
        raise f.fail(key, f"{2 * size} hex digits", text)
    return text


def _is_hex(text: str, size: int) -> bool:
    return len(text) == 2 * size and set(text) <= set("0123456789abcdef")


_READERS: Mapping[str, Callable[[Fields], Message]] = {
    _KEYS: _keys,
    _SHARES: _shares,
    _INPUT: _input,
    _ANSWER: _answer,
}
