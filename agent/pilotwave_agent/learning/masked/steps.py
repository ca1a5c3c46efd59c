"""What a device makes in each step of a masked round, and what it refuses. Pure, but for chance.

    1 keys     two new X25519 keys, signed
    2 shares   the whole group is as the plan says: shares of two secrets, sealed for each member
    3 input    the boxes of two thirds or more: numbers under its own mask and those in pairs
    4 answer   the members that are left, two thirds or more: a share for each member, ever one

A group, the members between whom masks are, and an answer are settled once: a server that comes
with others gets what it had, or nothing. Each raises a `ProtocolError`, or `SealingError`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pilotwave_agent.learning.masked.state import Held, MaskedState, Phase
from pilotwave_protocol import dsse, sealing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked import shamir
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from pilotwave_protocol.learning.masked.members import Members, verified_keys, verified_members
from pilotwave_protocol.learning.masked.messages import (
    MASKED_TYPE,
    Answer,
    Keys,
    MaskedInput,
    Message,
    Shares,
    join_message,
)
from pilotwave_protocol.learning.masked.streams import agree, pair_mask, self_mask
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.statistics import read_numbers


@dataclass(frozen=True)
class Me:
    """A device in a round of a plan: `plan` is what the publisher signed, `digest` its own."""

    fleet: str
    device: str
    key: Ed25519PrivateKey
    plan: TrainingPlan
    digest: str

    def sign(self, message: Message) -> bytes:
        """Return a message in its envelope."""
        return dsse.sign(MASKED_TYPE, message.to_bytes(), self.key)


def make_keys(me: Me, attempt: int) -> MaskedState:
    """Step 1."""
    FixedPoint.of(me.plan)
    channel, mask = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    message = Keys(
        fleet=me.fleet,
        device=me.device,
        model=me.plan.model,
        plan=me.digest,
        round=1,
        attempt=attempt,
        key=dsse.raw_public(me.key.public_key()).hex(),
        channel=sealing.public_hex(channel),
        mask=sealing.public_hex(mask),
    )
    return MaskedState(
        Phase.KEYS,
        me.plan.model,
        attempt,
        me.plan.deadline.timestamp(),
        keys=me.sign(message),
        channel_key=channel.private_bytes_raw(),
        mask_key=mask.private_bytes_raw(),
    )


def make_shares(me: Me, state: MaskedState, envelopes: Sequence[bytes]) -> MaskedState:
    """Step 2."""
    if state.phase is not Phase.KEYS:
        _check_same("members", sorted(state.members), sorted(envelopes))
        return state
    privacy = me.plan.privacy
    members = verified_members(envelopes, verified_keys(state.keys), count=privacy.group)
    mask_key = X25519PrivateKey.from_private_bytes(state.mask_key)
    for member in members.of:
        agree(mask_key, member.keys.mask)
    seed = secrets.token_bytes(shamir.SECRET_BYTES)
    split = [
        shamir.split(secret, threshold=privacy.threshold, count=privacy.group)
        for secret in (seed, state.mask_key)
    ]
    given = {name: Held(*pair) for name, *pair in zip(members.names, *split, strict=True)}
    boxes = {
        member.name: sealing.seal(
            given[member.name].self_mask + given[member.name].mask_key,
            member.keys.channel,
            about=_about(members, me.device, member.name),
        ).hex()
        for member in members.of
        if member.name != me.device
    }
    return replace(
        state,
        phase=Phase.SHARES,
        members=tuple(envelopes),
        seed=seed,
        shares=me.sign(Shares(me.device, members.digest, boxes)),
        held={me.device: given[me.device]},
    )


def take_boxes(me: Me, state: MaskedState, boxes: Mapping[str, bytes]) -> MaskedState:
    """Step 3, as far as it is settled here; `masked_input` is what is sent."""
    together = sorted({*boxes, me.device})
    if state.phase is not Phase.SHARES:
        _check_same("members that gave shares", list(state.together), together)
        return state
    members = _members(state)
    held = {name: _opened(me, state, members, name, raw) for name, raw in boxes.items()}
    if len(together) < me.plan.privacy.threshold or me.device in boxes:
        raise BadMessage(f"expected shares of {me.plan.privacy.threshold} members or more")
    return replace(state, phase=Phase.INPUT, held={**held, **state.held}, together=tuple(together))


def masked_input(me: Me, state: MaskedState, numbers: bytes) -> bytes:
    """Return the message of step 3: the same whenever it is made."""
    members, form = _members(state), FixedPoint.of(me.plan)
    total = form.encode(read_numbers(numbers, form.count))
    total = total + self_mask(state.seed, form, group=members.digest)
    key = X25519PrivateKey.from_private_bytes(state.mask_key)
    for name in state.together:
        if name != me.device:
            mask = pair_mask(key, members[name].keys.mask, form, group=members.digest)
            total = total + mask if me.device < name else total - mask
    raw = np.asarray(total, form.dtype).tobytes()
    message = MaskedInput(me.device, members.digest, state.together, sha256_hex(raw), len(raw))
    return join_message(me.sign(message), raw)


def make_answer(me: Me, state: MaskedState, survivors: Sequence[str]) -> MaskedState:
    """Step 4."""
    left = sorted(set(survivors))
    if state.phase is Phase.ANSWERED:
        _check_same("members that are left", list(state.survivors), left)
        return state
    if state.phase is not Phase.INPUT:
        raise BadMessage("expected no question before this device has sent its numbers")
    if not set(left) <= set(state.together) or me.device not in left:
        raise BadMessage("expected members that gave shares, and this one among them")
    if len(left) < me.plan.privacy.threshold:
        raise BadMessage(f"expected {me.plan.privacy.threshold} members or more; got {len(left)}")
    message = Answer(
        me.device,
        _members(state).digest,
        {name: state.held[name].self_mask.hex() for name in left},
        {n: state.held[n].mask_key.hex() for n in state.together if n not in left},
    )
    return MaskedState(
        Phase.ANSWERED,
        state.model,
        state.attempt,
        state.ends,
        survivors=tuple(left),
        answer=me.sign(message),
    )


def _members(state: MaskedState) -> Members:
    """The group that this device has checked before it made its shares."""
    return Members.listed([verified_keys(envelope) for envelope in state.members])


def _opened(me: Me, state: MaskedState, members: Members, name: str, raw: bytes) -> Held:
    found = members.read(raw, name)
    if not isinstance(found, Shares):
        raise BadMessage(f"expected the shares of {name}")
    key = X25519PrivateKey.from_private_bytes(state.channel_key)
    about = _about(members, name, me.device)
    plain = sealing.unseal(found.box(me.device), key, about=about)
    if len(plain) != 2 * shamir.SHARE_BYTES:
        raise BadMessage(f"expected two shares of {name}; got {len(plain)} bytes")
    return Held(plain[: shamir.SHARE_BYTES], plain[shamir.SHARE_BYTES :])


def _about(members: Members, sender: str, receiver: str) -> bytes:
    return f"pilotwave/masked/box {members.digest} {sender} {receiver}".encode()


def _check_same(what: str, had: Sequence[object], got: Sequence[object]) -> None:
    if had != got:
        raise BadMessage(f"expected the {what} that this device was told before; got others")
