"""Take the word of devices that they take no part in a round, and why."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from pilotwave_protocol.learning.decline import (
    DECLINE_TYPE,
    FAILURES,
    MAX_DECLINE_BYTES,
    parse_decline,
)
from pilotwave_server.devices.service import get_device
from pilotwave_server.learning.asked import DECLINED, FAILED, note
from pilotwave_server.learning.statements import read_signed, round_of


def take(session: Session, raw: bytes, *, device: str, now: datetime) -> None:
    """Note what `device` says; the last word counts, and an update more than any.

    DeviceUnknown, BadUpdate, RoundOver.
    """
    row = get_device(session, device, lock=True)
    said = read_signed(
        session, raw, row, kind=DECLINE_TYPE, max_bytes=MAX_DECLINE_BYTES, parse=parse_decline
    )
    where, _ = round_of(session, said, row, now)
    state = FAILED if said.why in FAILURES else DECLINED
    why = str(said.why)
    note(session, where.id, row, state, now=now, reason=why, examples=said.examples)
