"""Act on many devices at once: each by the same rules as alone, each with its own audit event. A
hundred of them cost as many statements as one (`steps`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from pilotwave_protocol.errors import PilotwaveError
from pilotwave_server.context import Context
from pilotwave_server.db import lock_fleet, next_revision
from pilotwave_server.devices.shown import MOST, Shown, difference, digest, names_of
from pilotwave_server.devices.silence import silence
from pilotwave_server.errors import Conflict, Invalid, ServerError
from pilotwave_server.groups.service import groups_by_device
from pilotwave_server.inventory.finding import DeviceFilter, matching
from pilotwave_server.operators.roles import Actor
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.bulk.steps import STEPS, DeviceAction, Stamp, Step
from pilotwave_server.scope import Touched, check_scope

AT_ONCE = 100


class DevicesChanged(Conflict):
    """Other devices match than were shown. `joined` and `left` name up to ten each. Look again."""

    code = "devices_changed"


class TooManyDevices(Invalid):
    """More devices match than one request may act on. Narrow the filter."""

    code = "too_many_devices"


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


def act(
    context: Context, actor: Actor, names: Sequence[str], wanted: DeviceAction
) -> list[ActOutcome]:
    """Do it to each device, so many in one transaction that no other writer waits long."""
    found: list[ActOutcome] = []
    for begin in range(0, len(names), AT_ONCE):
        with context.db.write() as session:
            lock_fleet(session)
            chunk = names[begin : begin + AT_ONCE]
            refused = _refused(session, actor, chunk, wanted)
            allowed = [name for name in chunk if name not in refused]
            stamp = Stamp(str(actor), context.clock(), next_revision(session))
            snapshot = _snapshot(session, context, wanted)
            with STEPS[wanted.action](session, snapshot, allowed, wanted, stamp) as step:
                found += _each(chunk, refused, step)
    return found


def _snapshot(session: Session, context: Context, wanted: DeviceAction) -> FleetSnapshot | None:
    # the fleet is held, so that its picture stays true for all devices of the transaction
    if wanted.action != "rollback":
        return None
    return read_snapshot(session, context.get(RememberedSnapshot))


def _each(
    names: Sequence[str], refused: Mapping[str, ServerError], step: Step
) -> Iterator[ActOutcome]:
    """What came of it on each. A step that raises has changed nothing."""
    for name in names:
        try:
            if name in refused:
                raise refused[name]
            step(name)
            yield ActOutcome(name, done=True)
        except ServerError as error:
            yield ActOutcome(name, False, error.code, error.detail)
        except PilotwaveError as error:
            yield ActOutcome(name, False, "invalid", str(error))


def _refused(
    session: Session, actor: Actor, names: Sequence[str], wanted: DeviceAction
) -> dict[str, ServerError]:
    """The devices to which the actor may not do it, each with why. What has to be known of the
    devices is read for all of them at once."""
    if actor.models is None and actor.groups is None:
        return {}
    groups: Mapping[str, list[str]] = {}
    if actor.groups is not None and wanted.of_model is not None:
        groups = groups_by_device(session, names)
    refused = {}
    for name in names:
        try:
            check_scope(actor, Touched(wanted.of_model, groups.get(name, [])))
        except ServerError as error:
            refused[name] = error
    return refused
