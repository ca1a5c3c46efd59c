"""Read how often the devices of a rollout report: each by its own interval."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.rollouts.leases import HEALTHY, SHADOWING, SWITCHED
from pilotwave_server.rollouts.tables import RolloutDeviceRow


def reports_every(every_s: int | None) -> ColumnElement[bool]:
    """The WHERE expression over devices that report so often (None: that is not known)."""
    # not IS NOT DISTINCT FROM, for which PostgreSQL takes no index
    column = DeviceRow.check_in_s
    return column.is_(None) if every_s is None else column == every_s


def intervals(session: Session, rules: list[ColumnElement[bool]]) -> list[int | None]:
    """The intervals of a rollout's devices for which all rules hold."""
    d, r = DeviceRow, RolloutDeviceRow
    query = select(d.check_in_s).join(r, r.device_id == d.id).where(*rules).distinct()
    return list(session.scalars(query))


def longest_s(session: Session, rollout_id: int, *, unknown_s: int) -> int:
    """How often the slowest device reports that took or tries the version, and is not silent;
    `unknown_s` stands for devices of which that is not known."""
    d, r = DeviceRow, RolloutDeviceRow
    took_it = r.rollout_id == rollout_id, r.outcome.in_((SWITCHED, HEALTHY, SHADOWING))
    listened_to = d.state == "enrolled", d.silent_since.is_(None)
    longest = select(func.max(func.coalesce(d.check_in_s, unknown_s)))
    query = longest.join(r, r.device_id == d.id).where(*took_it, *listened_to)
    return session.scalar(query) or unknown_s
