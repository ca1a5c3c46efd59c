"""What an act on many devices does to each: one function for each action.

It reads what is needed of all devices when it begins and writes what concerns them all at its end;
between, it gives a step for each device, which raises before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from pilotwave_server.devices import service
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.rollouts import end_removals
from pilotwave_server.rollouts.assignments import pins
from pilotwave_server.rollouts.assignments.held import hold
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.choice.store import forget_own_failures
from pilotwave_server.rollouts.leases import forget_failures

BulkAction = Literal["label", "accept", "retry", "rollback", "decommission"]
Step = Callable[[str], object]


@dataclass(frozen=True)
class DeviceAction:
    """What is to be done to each device. `labels`: null removes one, others stay."""

    action: BulkAction
    model: str = ""
    to: str | None = None
    reason: str = ""
    labels: Mapping[str, str | None] | None = None

    @property
    def of_model(self) -> str | None:
        """The model that it concerns; None: the device itself, which no limited token may touch."""
        return self.model if self.action in ("retry", "rollback") else None


@dataclass(frozen=True)
class Stamp:
    """Who did it and when; `revision` is the transaction's, which each changed device gets."""

    actor: str
    now: datetime
    revision: int


Begin = Callable[
    [Session, FleetSnapshot | None, Collection[str], DeviceAction, Stamp],
    AbstractContextManager[Step],
]


def _find(rows: Mapping[str, DeviceRow], name: str) -> DeviceRow:
    if name not in rows:
        raise DeviceUnknown(name)
    return rows[name]


@contextmanager
def _label(
    session: Session,
    _: FleetSnapshot | None,
    names: Collection[str],
    wanted: DeviceAction,
    by: Stamp,
) -> Iterator[Step]:
    rows = service.hold_devices(session, names)

    def step(name: str) -> None:
        row = _find(rows, name)
        kept = {**row.labels, **(wanted.labels or {})}
        labels = {key: value for key, value in kept.items() if value is not None}
        service.relabel(session, row, labels, **vars(by))

    yield step


def _alone(act: Callable[..., object]) -> Begin:
    """The beginning of an action that concerns each device alone, and is `act` for one."""

    @contextmanager
    def begin(
        session: Session,
        _: FleetSnapshot | None,
        names: Collection[str],
        wanted: DeviceAction,
        by: Stamp,
    ) -> Iterator[Step]:
        rows = service.hold_devices(session, names)
        yield lambda name: act(session, _find(rows, name), **vars(by))

    return begin


@contextmanager
def _retry(
    session: Session,
    _: FleetSnapshot | None,
    names: Collection[str],
    wanted: DeviceAction,
    by: Stamp,
) -> Iterator[Step]:
    rows = service.hold_devices(session, names)
    is_known = session.get(ModelRow, wanted.model) is not None
    tried: list[int] = []

    def step(name: str) -> None:
        row = _find(rows, name)
        if not is_known:
            raise ModelUnknown(wanted.model)
        pins.try_again(session, row, model=wanted.model, **vars(by))
        tried.append(row.id)

    yield step
    forget_failures(session, tried, model=wanted.model, counts_from=by.revision, now=by.now)
    forget_own_failures(session, tried, wanted.model)


@contextmanager
def _roll_back(
    session: Session,
    snapshot: FleetSnapshot | None,
    names: Collection[str],
    wanted: DeviceAction,
    by: Stamp,
) -> Iterator[Step]:
    assert snapshot is not None
    held = hold(session, snapshot, names, wanted.model, with_history=wanted.to is None)
    word = pins.OperatorNote("device.rollback", wanted.reason, by.actor, by.now)
    pinned: list[int] = []

    def step(name: str) -> None:
        row = pins.send_back(session, snapshot, held, name, wanted.to, word)
        held.rows[name].revision = by.revision
        pinned.append(row.device_id)

    yield step
    end_removals.end_for_devices(session, pinned, wanted.model)


STEPS: Mapping[BulkAction, Begin] = {
    "label": _label,
    "accept": _alone(service.let_in),
    "decommission": _alone(service.retire),
    "retry": _retry,
    "rollback": _roll_back,
}
