"""Which devices of its group an experiment's open waves take: by the order of a rollout's waves."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import PRIME, DeviceRow
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.learning.policy import LearnPolicy
from pilotwave_server.learning.tables import ExperimentRow
from pilotwave_server.rollouts.waves import Salt, position, position_sql, threshold_of


def is_in_wave(experiment: ExperimentRow, device: DeviceRow) -> bool:
    """Whether the open waves take a device of the group."""
    e = experiment
    return position(e.multiplier, e.offset, device.bucket) < e.threshold


def open_wave(
    session: Session, experiment: ExperimentRow, policy: LearnPolicy, index: int, *, now: datetime
) -> None:
    """Let wave `index` take part too. It reads the group's devices once; those that an operator
    pinned are among them, for learning changes nothing on a device."""
    e, wave = experiment, policy.waves[index]
    group = session.get(GroupRow, e.group_id) if e.group_id is not None else None
    if group is None:
        return
    devices = DeviceRow.state == "enrolled", in_group(session, group)
    order = Salt(e.multiplier, e.offset)
    own = threshold_of(session, devices, order, percent=wave.percent, count=wave.count)
    e.threshold = max(e.threshold, own)
    taken = () if e.threshold == PRIME else (position_sql(order) < e.threshold,)
    counted = select(func.count()).select_from(DeviceRow).where(*devices, *taken)
    e.wave, e.wave_devices, e.wave_opened_at = index, session.scalar(counted) or 0, now
    session.flush()
