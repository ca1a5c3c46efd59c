"""Take what devices send in masked rounds: each message once, in its turn.

1 the envelope is signed by the device that sends it
2 keys are of an open round of its group; all else is of a group that it is a member of
3 its group waits for it, and the device has sent what comes before
4 it fits the group: boxes for each other member, numbers of the plan's size, a share for each
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from pilotwave_protocol.learning.masked.messages import (
    MASKED_TYPE,
    MAX_MESSAGE_BYTES,
    Answer,
    Keys,
    MaskedInput,
    Message,
    Shares,
    parse_message,
    split_message,
)
from pilotwave_protocol.learning.masked.step import Wants
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_server.db import fleet_row
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.envelopes import is_signed_by
from pilotwave_server.learning.asked import ANSWERED, note
from pilotwave_server.learning.experiments import find, plan_of
from pilotwave_server.learning.masked.groups import go_on, make_groups
from pilotwave_server.learning.masked.members import newest_member, rows_of
from pilotwave_server.learning.masked.phases import AWAITED, Phase, Sent, before, has_sent
from pilotwave_server.learning.masked.steps import step_for
from pilotwave_server.learning.masked.tables import GroupRow, MemberRow
from pilotwave_server.learning.statements import BadUpdate, RoundOver, round_of
from pilotwave_server.learning.states import OPEN
from pilotwave_server.learning.tables import RoundRow
from pilotwave_server.learning.updates import UpdateRepeated, check_room

GroupMessage = Shares | MaskedInput | Answer
_KINDS: dict[type[GroupMessage], Sent] = {
    Shares: Sent.SHARES,
    MaskedInput: Sent.INPUT,
    Answer: Sent.ANSWER,
}


def take(session: Session, raw: bytes, *, device: str, now: datetime) -> None:
    """Keep what `device` sent; what it has sent already is fine.

    DeviceUnknown, BadUpdate, RoundOver, UpdateRepeated, RoundFull.
    """
    row = get_device(session, device, lock=True)
    envelope, numbers = split_message(raw)
    message = _opened(envelope, row)
    if isinstance(message, Keys):
        _take_keys(session, message, envelope, row, now)
    else:
        _take_in_group(session, message, (envelope, numbers), row, now)


def _opened(envelope: bytes, row: DeviceRow) -> Message:
    try:
        claimed = dsse.peek_unverified(
            envelope, payload_type=MASKED_TYPE, max_bytes=2 * MAX_MESSAGE_BYTES
        )
        public = bytes.fromhex(row.public_key)
        if not is_signed_by(claimed, payload_type=MASKED_TYPE, public=public):
            raise BadUpdate(f"expected an envelope signed by the key of {row.name}")
        message = parse_message(claimed.payload)
    except ProtocolError as error:
        raise BadUpdate(f"this is no message of a masked round: {error}") from error
    if message.device != row.name:
        raise BadUpdate(f"expected what {row.name} says; got what {message.device} says")
    return message


def _take_keys(
    session: Session, keys: Keys, envelope: bytes, row: DeviceRow, now: datetime
) -> None:
    fleet = fleet_row(session).fleet
    if (keys.fleet, keys.key) != (fleet, row.public_key):
        raise BadUpdate(f"expected keys for {fleet}, with the key of {row.name} itself")
    where, experiment = round_of(session, keys, row, now)
    plan = plan_of(session, experiment)
    if not plan.privacy.masked:
        raise RoundOver(f"no masked round of this plan of {keys.model} is open")
    known = newest_member(session, where, row.id)
    if known is not None and known.attempt == keys.attempt:
        if known.keys != envelope:
            raise UpdateRepeated(f"{row.name} has sent other keys")
        return
    step = step_for(session, where, row.id)
    turn = 1 if step.wants is Wants.KEYS else step.attempt + 1
    if step.wants not in (Wants.KEYS, Wants.LOST) or keys.attempt != turn:
        raise RoundOver(f"{row.name} is in a group, or has been in as many as it may")
    session.add(
        MemberRow(
            round_id=where.id,
            device_id=row.id,
            device=row.name,
            attempt=keys.attempt,
            sent=Sent.KEYS.value,
            received_at=now,
            keys=envelope,
        )
    )
    session.flush()
    note(session, where.id, row, ANSWERED, now=now)  # what takes long is done
    make_groups(session, where, plan, now=now)


def _take_in_group(
    session: Session,
    message: GroupMessage,
    sent: tuple[bytes, bytes],
    row: DeviceRow,
    now: datetime,
) -> None:
    g, m, kind = GroupRow, MemberRow, _KINDS[type(message)]
    group = session.scalar(select(g).where(g.digest == message.group))
    if group is None:
        raise RoundOver("there is no such group")
    where = session.get_one(RoundRow, group.round_id, with_for_update=True, populate_existing=True)
    session.refresh(group)  # another member may have been here before the round was locked
    member = session.scalar(select(m).where(m.group_id == group.id, m.device_id == row.id))
    if member is None:
        raise RoundOver(f"{row.name} is no member of this group")
    if has_sent(Sent(member.sent), kind):
        return
    phase = Phase(group.phase)
    if where.state != OPEN or AWAITED.get(phase) is not kind or member.sent != before(kind).value:
        raise RoundOver(f"the group of {row.name} is {phase.value}, and waits for no {kind.value}")
    plan = plan_of(session, find(session, where.experiment_id))
    _check_fits(message, sent[1], plan, rows_of(session, group))
    if kind is Sent.INPUT:
        check_room(session, len(sent[1]), where, row, plan)
        where.size += len(sent[1])
        member.numbers = sent[1]
    else:
        setattr(member, kind.value, sent[0])
    member.sent, member.received_at = kind.value, now
    session.flush()
    go_on(session, where, group, plan, now=now)


def _check_fits(
    message: GroupMessage, numbers: bytes, plan: TrainingPlan, rows: list[MemberRow]
) -> None:
    together = {row.device for row in rows if has_sent(Sent(row.sent), Sent.SHARES)}
    left = {row.device for row in rows if has_sent(Sent(row.sent), Sent.INPUT)}
    match message:
        case Shares():
            fits = set(message.boxes) == {row.device for row in rows} - {message.device}
        case MaskedInput():
            signed = (message.size, message.numbers) == (len(numbers), sha256_hex(numbers))
            size = FixedPoint.of(plan).size
            fits = signed and len(numbers) == size and set(message.together) == together
        case _:
            fits = set(message.self_masks) == left and set(message.mask_keys) == together - left
    if not fits:
        raise BadUpdate(f"this does not fit the group of {message.device} as it is")
