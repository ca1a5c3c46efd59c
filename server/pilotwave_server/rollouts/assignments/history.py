"""Who it was that took a version back from a device: a rollout's gate, or a person.

A device knows only that it was told to run what ran there before, and reports `operator_rollback`
whoever decided it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session

from pilotwave_protocol.states import Reason
from pilotwave_server.devices.report_tables import DeviceHistoryRow
from pilotwave_server.devices.tables import PinRow
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.rollouts.tables import DecisionRow, RolloutDeviceRow, RolloutRow

_CLOCKS_DIFFER = timedelta(minutes=5)
_BACK = (str(RolloutState.ROLLING_BACK), str(RolloutState.ROLLED_BACK))


class TakenBackBy(NamedTuple):
    """The rollout that took a version back, and a sentence that says who decided it."""

    rollout: str
    sentence: str


def taken_back_by(
    session: Session, device_id: int, rows: Sequence[DeviceHistoryRow]
) -> dict[int, TakenBackBy]:
    """By row number, what took those versions back that a rollout took back."""
    back = [row for row in rows if row.reason == Reason.OPERATOR_ROLLBACK]
    decided = _decided(session, device_id) if back else []
    pins = _pins(session, device_id) if back else {}
    found: dict[int, TakenBackBy] = {}
    for row in back:
        for by in decided:
            pin = pins.get(row.model)
            pinned = pin is not None and pin.set_at <= by.at and pin.version != row.version
            same = (by.model, by.version) == (row.model, row.version)
            if same and not pinned and row.at >= by.at - _CLOCKS_DIFFER:
                found[row.id] = TakenBackBy(f"r{by.id}", _sentence(by))
                break
    return found


def _decided(session: Session, device_id: int) -> Sequence[Row[Any]]:
    """The rollbacks of rollouts that this device took part in, the newest first."""
    r, d, decision = RolloutRow, RolloutDeviceRow, DecisionRow
    return session.execute(
        select(r.id, r.model, r.version, decision.at, decision.sentence)
        .join(d, d.rollout_id == r.id)
        .join(decision, decision.rollout_id == r.id)
        .where(d.device_id == device_id, r.state.in_(_BACK), decision.action == "rollback")
        .order_by(r.id.desc())
    ).all()


def _pins(session: Session, device_id: int) -> dict[str, PinRow]:
    rows = session.scalars(select(PinRow).where(PinRow.device_id == device_id))
    return {row.model: row for row in rows}


def _sentence(by: Row[Any]) -> str:
    return f"taken back with rollout r{by.id}: {by.sentence}"
