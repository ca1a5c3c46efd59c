"""Take the masks off the sum of a group. Pure. What each device sent stays masked.

Of a member that is left the self mask goes, of one that is gone those that it has in common with
each that is left; those between two that are left have cancelled out (Bonawitz et al., CCS 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked import shamir
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint, Whole
from pilotwave_protocol.learning.masked.members import Members
from pilotwave_protocol.learning.masked.messages import Answer
from pilotwave_protocol.learning.masked.streams import pair_mask, self_mask
from pilotwave_protocol.learning.statistics import Floats
from pilotwave_protocol.sealing import public_hex


def unmask(
    members: Members, form: FixedPoint, inputs: Iterable[bytes], answers: Sequence[Answer]
) -> Floats:
    """Return the sum over the members that are left, of their inputs and of as many answers as the
    threshold is. BadMessage: the answers do not fit the group, or each other."""
    left, gone = sorted(answers[0].self_masks), sorted(answers[0].mask_keys)
    total = np.zeros(form.count, form.dtype)
    for raw in inputs:
        total = total + form.read(raw)
    for name in left:
        seed = _joined(members, {a.device: a.self_masks for a in answers}, name)
        total = total - self_mask(seed, form, group=members.digest)
    for name in gone:
        key = _mask_key(members, answers, name)
        for other in left:
            total = _without(total, members, form, key, name, other)
    return form.decode(total)


def _without(
    total: Whole, members: Members, form: FixedPoint, key: X25519PrivateKey, gone: str, left: str
) -> Whole:
    mask = pair_mask(key, members[left].keys.mask, form, group=members.digest)
    return total - mask if left < gone else total + mask


def _mask_key(members: Members, answers: Sequence[Answer], name: str) -> X25519PrivateKey:
    secret = _joined(members, {a.device: a.mask_keys for a in answers}, name)
    key = X25519PrivateKey.from_private_bytes(secret)
    if public_hex(key) != members[name].keys.mask:
        raise BadMessage(f"expected shares of the mask key of {name}; they give another key")
    return key


def _joined(members: Members, told: Mapping[str, Mapping[str, str]], name: str) -> bytes:
    try:
        shares = {members.number(by): bytes.fromhex(own[name]) for by, own in told.items()}
    except KeyError as e:
        raise BadMessage(f"expected a share of {name} in each answer") from e
    return shamir.join(shares)
