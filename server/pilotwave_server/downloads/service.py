"""What was sent, added up by device, version, rollout or site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.downloads.tables import SentRow
from pilotwave_server.paging import PageRequest, paginate_rows

s = SentRow
KEYS: Mapping[str, list[InstrumentedAttribute[Any]]] = {
    "device": [DeviceRow.name],
    "model": [s.model],
    "version": [s.model, s.version],
    "variant": [s.model, s.version, s.variant],
    "rollout": [s.rollout],
    "site": [s.site],
}
_NAMED: Mapping[str, InstrumentedAttribute[Any]] = {
    "device": DeviceRow.name,
    "model": s.model,
    "version": s.version,
    "rollout": s.rollout,
    "site": s.site,
}


def list_sent(
    session: Session, *, by: str, only: Mapping[str, str | None], page: PageRequest
) -> tuple[Sequence[Row[Any]], str | None]:
    """The sums for each `by` (a key of `KEYS`) of what `only` lets through, in order of name."""
    keys = KEYS[by]
    names = [key.label("device") if key is DeviceRow.name else key for key in keys]
    sums = (
        func.sum(s.sent_full).label("sent_full"),
        func.sum(s.sent_delta).label("sent_delta"),
        func.sum(s.delta_for).label("delta_for"),
        func.count(func.distinct(s.device_id)).label("devices"),
    )
    query = select(*names, *sums).select_from(s).group_by(*keys)
    if by == "device" or only.get("device") is not None:
        query = query.join(DeviceRow, DeviceRow.id == s.device_id)
    for name, value in only.items():
        if value is not None:
            query = query.where(_NAMED[name] == value)
    labels = ["device" if key is DeviceRow.name else key.key for key in keys]
    return paginate_rows(session, query, keys=keys, labels=labels, page=page)
