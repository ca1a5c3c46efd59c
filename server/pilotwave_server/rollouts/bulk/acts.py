"""Act on many devices at once: each by the same rules as alone, each with its own audit event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from pilotwave_protocol.errors import PilotwaveError
from pilotwave_server.context import Context
from pilotwave_server.db import lock_fleet
from pilotwave_server.devices import service
from pilotwave_server.devices.finding import DeviceFilter, matching
from pilotwave_server.devices.shown import MOST, Shown, difference, digest, names_of
from pilotwave_server.devices.silence import silence
from pilotwave_server.errors import Conflict, Invalid, ServerError
from pilotwave_server.groups.service import groups_by_device
from pilotwave_server.operators.roles import Actor
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.rollouts.assignments import pins
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.scope import Touched, check_scope

AT_ONCE = 100
BulkAction = Literal["label", "accept", "retry", "rollback", "decommission"]


class DevicesChanged(Conflict):
    """Other devices match than were shown. `joined` and `left` name up to ten each. Look again."""

    code = "devices_changed"


class TooManyDevices(Invalid):
    """More devices match than one request may act on. Narrow the filter."""

    code = "too_many_devices"


@dataclass(frozen=True)
class Deed:
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
class ActOutcome:
    """What came of it on one device; `code` and `sentence` say why it was not done."""

    device: str
    done: bool
    code: str | None = None
    sentence: str | None = None


def find(session: Session, wanted: DeviceFilter, context: Context) -> list[str]:
    """The names of the devices that a filter takes. TooManyDevices, BadSelector, GroupUnknown."""
    rules = matching(session, wanted, silence(context.settings, context.clock()))
    names = list(names_of(session, rules, limit=MOST + 1))
    if len(names) > MOST:
        raise TooManyDevices(f"more than {MOST:,} devices match: narrow the filter")
    return names


def check_same(names: Sequence[str], seen: Shown) -> None:
    """DevicesChanged unless exactly the devices match that were shown."""
    if digest(names) == seen.digest:
        return
    apart = difference(names, seen.sketch)
    matched = f"{len(names):,} {'device matches' if len(names) == 1 else 'devices match'} now"
    expected = "other ones were" if seen.devices is None else f"{seen.devices:,} were"
    who = f": {apart.sentence}" if apart.sentence else ""
    raise DevicesChanged(
        f"{matched}, and {expected} shown{who}. Look again",
        found=len(names),
        joined=apart.joined,
        left=apart.left,
    )


def act(context: Context, actor: Actor, names: Sequence[str], deed: Deed) -> list[ActOutcome]:
    """Do it to each device, so many in one transaction that no other writer waits long."""
    found: list[ActOutcome] = []
    for begin in range(0, len(names), AT_ONCE):
        with context.db.write() as session:
            lock_fleet(session)
            chunk = names[begin : begin + AT_ONCE]
            check = _check(session, actor, chunk, deed)
            step = _step(session, context, actor, deed, now=context.clock())
            found += _each(session, chunk, check, step)
    return found


def _each(
    session: Session,
    names: Sequence[str],
    check: Callable[[str], None],
    step: Callable[[str], None],
) -> Iterator[ActOutcome]:
    for name in names:
        try:
            check(name)
            with session.begin_nested():
                step(name)
            yield ActOutcome(name, done=True)
        except ServerError as error:
            yield ActOutcome(name, False, error.code, error.detail)
        except PilotwaveError as error:
            yield ActOutcome(name, False, "invalid", str(error))


def _check(
    session: Session, actor: Actor, names: Sequence[str], deed: Deed
) -> Callable[[str], None]:
    """Raises ScopeForbids for a device to which the actor may not do it. What has to be known of
    the devices is read for all of them at once."""
    groups: Mapping[str, list[str]] = {}
    if actor.groups is not None and deed.of_model is not None:
        groups = groups_by_device(session, names)

    def check(name: str) -> None:
        if actor.models is not None or actor.groups is not None:
            check_scope(actor, Touched(deed.of_model, groups.get(name, [])))

    return check


def _step(
    session: Session, context: Context, actor: Actor, deed: Deed, *, now: datetime
) -> Callable[[str], None]:
    """What is done to one device."""
    who = str(actor)
    # the fleet is held, so that its picture stays true for all devices of the transaction
    remembered = context.get(RememberedSnapshot)
    snapshot = read_snapshot(session, remembered) if deed.action == "rollback" else None

    def label(name: str) -> None:
        kept = {**service.get_device(session, name).labels, **(deed.labels or {})}
        labels = {key: value for key, value in kept.items() if value is not None}
        service.set_labels(session, name=name, labels=labels, actor=who, now=now)

    def accept(name: str) -> None:
        service.accept(session, name=name, actor=who, now=now)

    def decommission(name: str) -> None:
        service.decommission(session, name=name, actor=who, now=now)

    # held by the function, so that the session reads the model once for all devices
    row = session.get(ModelRow, deed.model) if deed.action == "retry" else None

    def retry(name: str, held: ModelRow | None = row) -> None:
        pins.retry(session, name=name, model=deed.model, actor=who, now=now)

    def rollback(name: str) -> None:
        assert snapshot is not None
        pins.roll_back(
            session,
            snapshot,
            name=name,
            model=deed.model,
            to=deed.to,
            reason=deed.reason,
            actor=who,
            now=now,
        )

    steps = {
        "label": label,
        "accept": accept,
        "decommission": decommission,
        "retry": retry,
        "rollback": rollback,
    }
    return steps[deed.action]
