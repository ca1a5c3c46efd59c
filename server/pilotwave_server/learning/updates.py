"""Take updates from devices: each once, of its own round, and no numbers that cannot be.

1 the envelope is signed by the device that sends it      4 no other came from it in this round
2 it is for an open round of a plan in a group of its     5 size and digest are as signed
3 of this fleet                                           6 the numbers (`check_numbers`)

A later round of several closes with the update of the last device that answered the one before.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.learning.plan import Method, TrainingPlan
from pilotwave_protocol.learning.statistics import Statistics, read_numbers
from pilotwave_protocol.learning.update import (
    MAX_UPDATE_BYTES,
    UPDATE_TYPE,
    Update,
    parse_update,
    split_update,
)
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import Conflict, Unavailable
from pilotwave_server.learning.asked import ANSWERED, FAILED, note
from pilotwave_server.learning.check_numbers import (
    ImpossibleUpdate,
    check_change,
    check_sums,
)
from pilotwave_server.learning.experiments import plan_of
from pilotwave_server.learning.rounds import all_answered
from pilotwave_server.learning.statements import BadUpdate, RoundOver, read_signed, round_of
from pilotwave_server.learning.states import CLOSING
from pilotwave_server.learning.tables import ExperimentRow, RoundRow, UpdateRow, UpdateUploadRow

IMPOSSIBLE = "impossible_update"
MOST_BYTES = {Method.RIDGE: 1 << 30, Method.SGD: 128 << 20}
"""Of the updates of one round. Changes of `sgd` are in memory together, at eight bytes a number and
once more while they are compared; sums are read a few at a time."""


class UpdateRepeated(Conflict):
    """This device has sent another update in this round."""

    code: ClassVar[str] = "update_repeated"


class RoundFull(Unavailable):
    code: ClassVar[str] = "round_full"


def take(session: Session, raw: bytes, *, device: str, now: datetime) -> ImpossibleUpdate | None:
    """Keep the update that `device` sent; the very same again is fine.

    One whose numbers cannot be is noted, and what to answer is returned: the note shall stay.
    DeviceUnknown, BadUpdate, RoundOver, UpdateRepeated, RoundFull.
    """
    row = get_device(session, device, lock=True)
    try:
        envelope, numbers = split_update(raw)
    except ProtocolError as error:
        raise BadUpdate(f"this is no update: {error}") from error
    sent, where, experiment = waited_for(session, envelope, row, now)
    session.execute(delete(UpdateUploadRow).where(UpdateUploadRow.device_id == row.id))
    if is_kept(session, sent, where, row):
        return None
    plan = plan_of(session, experiment)
    try:
        _check(sent, numbers, plan)
    except ImpossibleUpdate as error:
        note(session, where.id, row, FAILED, reason=IMPOSSIBLE, now=now)
        return error
    check_room(session, sent.size, where, row, plan)
    session.add(
        UpdateRow(
            round_id=where.id,
            device_id=row.id,
            device=row.name,
            examples=sent.examples,
            sha256=sent.numbers,
            size=len(numbers),
            received_at=now,
            content=numbers,
        )
    )
    _count(session, where, sent)
    note(session, where.id, row, ANSWERED, now=now)
    session.refresh(where)
    if where.number > 1 and where.devices >= plan.least_devices and all_answered(session, where):
        where.state = CLOSING
    return None


def _count(session: Session, where: RoundRow, sent: Update) -> None:
    r = RoundRow
    counted = {
        "devices": r.devices + 1,
        "examples": r.examples + sent.examples,
        "size": r.size + sent.size,
    }
    session.execute(update(r).where(r.id == where.id).values(**counted))


def waited_for(
    session: Session, envelope: bytes, row: DeviceRow, now: datetime
) -> tuple[Update, RoundRow, ExperimentRow]:
    """What a device signed of its update, and the open round that it is for, which stays locked.

    BadUpdate, RoundOver.
    """
    sent = read_signed(
        session, envelope, row, kind=UPDATE_TYPE, max_bytes=MAX_UPDATE_BYTES, parse=parse_update
    )
    where, experiment = round_of(session, sent, row, now)
    if plan_of(session, experiment).privacy.masked:
        raise RoundOver(f"the round of this plan of {sent.model} is masked: it takes no updates")
    return sent, where, experiment


def is_kept(session: Session, sent: Update, where: RoundRow, row: DeviceRow) -> bool:
    """Say whether the very update is there already. UpdateRepeated: another one is."""
    u = UpdateRow
    known = session.scalar(select(u.sha256).where(u.round_id == where.id, u.device_id == row.id))
    if known not in (None, sent.numbers):
        raise UpdateRepeated(f"{row.name} has sent another update in {_named(where)}")
    return known is not None


def check_room(
    session: Session, size: int, where: RoundRow, row: DeviceRow, plan: TrainingPlan
) -> None:
    """RoundFull, where updates, and those of other devices that still arrive, leave too little."""
    up = UpdateUploadRow
    others = up.round_id == where.id, up.device_id != row.id
    due = session.scalar(select(func.coalesce(func.sum(up.size), 0)).where(*others)) or 0
    most = MOST_BYTES[plan.method]
    if where.size + due + size > most:
        raise RoundFull(
            f"{_named(where)} has {where.size + due} bytes of updates, of {most} at most"
        )


def forget_updates(session: Session, round_id: int) -> None:
    """Delete what devices sent in a round; that they took part stays."""
    u, up = UpdateRow, UpdateUploadRow
    session.execute(update(u).where(u.round_id == round_id).values(content=None))
    session.execute(delete(up).where(up.round_id == round_id))


def _named(where: RoundRow) -> str:
    return f"round {where.number} of experiment {where.experiment_id}"


def _check(sent: Update, numbers: bytes, plan: TrainingPlan) -> None:
    if len(numbers) != sent.size or sha256_hex(numbers) != sent.numbers:
        raise BadUpdate(
            f"expected {sent.size} bytes with the digest that was signed; got {len(numbers)}"
        )
    try:
        if plan.method is Method.SGD:
            change = read_numbers(numbers, plan.update_bytes // 4)
            check_change(change, plan, examples=sent.examples)
        else:
            found = Statistics.from_bytes(numbers, features=plan.features, classes=plan.classes)
            check_sums(found, plan, examples=sent.examples)
    except ProtocolError as error:
        raise BadUpdate(f"these are not the numbers of plan {plan.plan}: {error}") from error
