"""Find devices by selector, state, standing, what they run, group, name and reason."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.names import VersionKey, version_key
from pilotwave_server.devices.service import OUT, Standing, is_failing, is_refusing
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.selector import Op, Runs, compile_sql, parse
from pilotwave_server.groups.service import get_group, in_group
from pilotwave_server.telemetry.tables import DeviceModelRow

_ORDER: dict[Op, Callable[[VersionKey, VersionKey], bool]] = {
    Op.GT: operator.gt,
    Op.GE: operator.ge,
    Op.LT: operator.lt,
    Op.LE: operator.le,
}


@dataclass(frozen=True)
class DeviceFilter:
    """What devices have to be like; None: anything. `version` goes with `model`."""

    selector: str | None = None
    state: str | None = None
    standing: Standing | None = None
    model: str | None = None
    version: str | None = None
    group: str | None = None
    name: str | None = None
    reason: str | None = None


def matching(session: Session, wanted: DeviceFilter, silence: Silence) -> list[ColumnElement[bool]]:
    """The WHERE expressions over devices. BadSelector, GroupUnknown."""
    return list(_rules(session, wanted, silence))


def _rules(
    session: Session, wanted: DeviceFilter, silence: Silence
) -> Iterator[ColumnElement[bool]]:
    d = DeviceRow
    if wanted.state is not None:
        yield d.state == wanted.state
    if wanted.standing is not None:
        yield _stands(session, wanted.standing, silence)
    if wanted.name is not None:
        yield d.name.contains(wanted.name.lower(), autoescape=True)
    if wanted.group is not None:
        yield in_group(session, get_group(session, wanted.group))
    if wanted.model is not None or wanted.version is not None:
        yield _runs(wanted.model, wanted.version)
    if wanted.reason is not None:
        yield _gives(wanted.reason)
    if wanted.selector is not None:
        dialect = session.get_bind().dialect.name
        parsed = parse(wanted.selector, of_versions=True)
        yield compile_sql(parsed, d.labels, d.facts, dialect=dialect)
        for condition in parsed.runs:
            yield _runs_within(session, condition)


def _stands(session: Session, standing: Standing, silence: Silence) -> ColumnElement[bool]:
    d = DeviceRow
    # said so that no index serves it: SQLite would take it and sort the whole fleet, where the
    # index of the sort finds a page at once
    enrolled = d.state.not_in(OUT)
    match standing:
        case "online":
            return and_(enrolled, silence.heard(session))
        case "silent":
            return and_(enrolled, func.coalesce(silence.heard(session), False).is_(False))
        case "conflict":
            return d.conflict_since.is_not(None)
        case "refusing":
            return is_refusing()
        case "failing":
            return is_failing()


def _runs(model: str | None, version: str | None) -> ColumnElement[bool]:
    m = DeviceModelRow
    rules = [m.device_id == DeviceRow.id, m.current_version.is_not(None)]
    if model is not None:
        rules.append(m.model == model)
    if version is not None:
        rules.append(m.current_version == version)
    return exists().where(*rules)


def _gives(reason: str) -> ColumnElement[bool]:
    """Devices on which a model gives this reason, or that refuse their orders for it."""
    d, m = DeviceRow, DeviceModelRow
    of_model = exists().where(m.device_id == d.id, m.reason == reason)
    return or_(of_model, d.refusal["reason"].as_string() == reason)


def _runs_within(session: Session, condition: Runs) -> ColumnElement[bool]:
    """`runs detector<1.2`: versions are compared here, by their own order, and named in the SQL."""
    m = DeviceModelRow
    runs = [m.device_id == DeviceRow.id, m.model == condition.model]
    if condition.op in (Op.SET, Op.UNSET):
        found = exists().where(*runs, m.current_version.is_not(None))
        return found if condition.op is Op.SET else ~found
    seen = select(m.current_version).where(m.model == condition.model).distinct()
    there = [version for version in session.scalars(seen) if version is not None]
    wanted = [version_key(version) for version in condition.versions]
    if condition.op in _ORDER:
        holds = _ORDER[condition.op]
        some = [v for v in there if holds(version_key(v), wanted[0])]
        return exists().where(*runs, m.current_version.in_(some))
    same = exists().where(
        *runs, m.current_version.in_([v for v in there if version_key(v) in wanted])
    )
    return same if condition.op is Op.IN else ~same
