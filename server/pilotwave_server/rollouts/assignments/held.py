"""Devices that an operator pins or sends back, with all that is asked of them: read at once, so
that many cost as many statements as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.report_tables import DeviceHistoryRow, DeviceModelRow
from pilotwave_server.devices.service import hold_devices
from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.errors import ServerError
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.service import get_version
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.rollouts.assignments import capacity
from pilotwave_server.rollouts.assignments.load_device import Looked, look_at
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.telemetry.history import FAILED, HEALTHY, ROLLED_BACK

Became = Sequence[tuple[str, str]]
"""What versions became on a device (version, word), the latest first."""


@dataclass(frozen=True)
class Held:
    """Some devices and one model, until the transaction ends. `runs` is what each runs of it,
    `became` its history, `pins` are by the device's id. `fits` says that no device can be asked to
    run too many models."""

    model: str
    is_known: bool
    rows: Mapping[str, DeviceRow]
    seen: Mapping[str, Looked]
    pins: Mapping[int, PinRow]
    runs: Mapping[int, str | None]
    became: Mapping[int, Became]
    fits: bool
    _wrong: dict[str, ServerError | None] = field(default_factory=dict)

    def device(self, name: str) -> tuple[DeviceRow, Looked]:
        """The device of that name. DeviceUnknown, ModelUnknown."""
        if name not in self.rows:
            raise DeviceUnknown(name)
        if not self.is_known:
            raise ModelUnknown(self.model)
        return self.rows[name], self.seen[name]

    def check_version(self, session: Session, version: str) -> None:
        """VersionUnknown. It is asked for once."""
        if version not in self._wrong:
            try:
                get_version(session, model=self.model, version=version)
                self._wrong[version] = None
            except ServerError as error:
                self._wrong[version] = error
        wrong = self._wrong[version]
        if wrong is not None:
            raise wrong


def hold(
    session: Session,
    snapshot: FleetSnapshot,
    names: Collection[str],
    model: str,
    *,
    with_history: bool = False,
) -> Held:
    """Lock these devices and read what is known of them; those that there are not are absent."""
    rows = hold_devices(session, names)
    ids = [row.id for row in rows.values()]
    pins = select(PinRow).where(PinRow.device_id.in_(ids), PinRow.model == model)
    m = DeviceModelRow
    runs = select(m.device_id, m.current_version).where(m.device_id.in_(ids), m.model == model)
    return Held(
        model=model,
        is_known=session.get(ModelRow, model) is not None,
        rows=rows,
        seen=look_at(session, snapshot, list(rows)),
        pins={row.device_id: row for row in session.scalars(pins)},
        runs=dict(session.execute(runs).tuples().all()),
        became=_became(session, ids, model) if with_history else {},
        fits=capacity.fits_all(session, snapshot, model),
    )


def _became(session: Session, ids: Collection[int], model: str) -> dict[int, Became]:
    h = DeviceHistoryRow
    newest_first = (
        select(h.device_id, h.version, h.became)
        .where(h.device_id.in_(ids), h.model == model)
        .where(h.became.in_((HEALTHY, FAILED, ROLLED_BACK)))
        .order_by(h.id.desc())
    )
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for device, version, became in session.execute(newest_first):
        found[device].append((version, became))
    return {**found}
