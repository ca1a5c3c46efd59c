"""Find devices by selector, state, standing, what they run, group, name and reason."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.names import VersionKey, version_key
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.service import (
    FAILED,
    OUT,
    Standing,
    is_drifting,
    is_failing,
    is_refusing,
)
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.service import get_group, in_group
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.service import check_model_known
from pilotwave_server.selector import Op, Runs, compile_sql, parse

_ORDER: dict[Op, Callable[[VersionKey, VersionKey], bool]] = {
    Op.GT: operator.gt,
    Op.GE: operator.ge,
    Op.LT: operator.lt,
    Op.LE: operator.le,
}


@dataclass(frozen=True)
class DeviceFilter:
    """What devices have to be like; None: anything. `model`, `version`, `reason` and, beside them,
    `failing` are asked of one model on the device, not each of another."""

    selector: str | None = None
    state: str | None = None
    standing: Standing | None = None
    model: str | None = None
    version: str | None = None
    group: str | None = None
    name: str | None = None
    reason: str | None = None


def matching(session: Session, wanted: DeviceFilter, silence: Silence) -> list[ColumnElement[bool]]:
    """The WHERE expressions over devices. BadSelector, GroupUnknown, ModelUnknown."""
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
    if wanted.model is not None:
        _check_model(session, wanted.model)
    if not wanted.model == wanted.version == wanted.reason is None:
        yield _has_model(wanted)
    if wanted.selector is not None:
        dialect = session.get_bind().dialect.name
        parsed = parse(wanted.selector, of_versions=True)
        yield compile_sql(parsed.of_devices, d.labels, d.facts, dialect=dialect)
        for condition in parsed.runs:
            yield _runs_within(session, condition)


def _check_model(session: Session, model: str) -> None:
    """ModelUnknown where neither the registry nor any device knows it: after a restore, devices may
    run what the registry has lost."""
    reported = select(DeviceModelRow.device_id).where(DeviceModelRow.model == model).limit(1)
    try:
        check_model_known(session, model)
    except ModelUnknown:
        if session.scalar(reported) is None:
            raise


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
        case "drifting":
            return is_drifting(silence.now)


def _has_model(wanted: DeviceFilter) -> ColumnElement[bool]:
    """Devices with one model for which all holds that is asked of a model. For a reason alone, also
    those that refuse their orders for it: a refusal is of no model."""
    d, m = DeviceRow, DeviceModelRow
    rules = [m.device_id == d.id]
    if wanted.model is not None:
        rules.append(m.model == wanted.model)
    if wanted.version is not None:
        rules.append(m.current_version == wanted.version)
    if wanted.reason is not None:
        rules.append(m.reason == wanted.reason)
    if wanted.standing == "failing":
        rules.append(or_(m.state.in_(FAILED), d.refusal.is_not(None)))
    has_model: ColumnElement[bool] = exists().where(*rules)
    if wanted.model is None and wanted.version is None:
        return or_(has_model, d.refusal["reason"].as_string() == wanted.reason)
    return has_model


def _runs_within(session: Session, condition: Runs) -> ColumnElement[bool]:
    """`runs detector<1.2`: versions are compared here, by their own order, and named in the SQL."""
    m = DeviceModelRow
    runs = [m.device_id == DeviceRow.id, m.model == condition.model]
    if condition.op in (Op.SET, Op.UNSET):
        found = exists().where(*runs, m.current_version.is_not(None))
        return found if condition.op is Op.SET else ~found
    seen = select(m.current_version).where(m.model == condition.model).distinct()
    there = [version for version in session.scalars(seen) if version is not None]
    holds = _test(condition)
    return exists().where(*runs, m.current_version.in_([v for v in there if holds(version_key(v))]))


def _test(condition: Runs) -> Callable[[VersionKey], bool]:
    wanted = [version_key(version) for version in condition.versions]
    if condition.op in _ORDER:
        compare = _ORDER[condition.op]
        return lambda version: compare(version, wanted[0])
    return lambda version: (version in wanted) is (condition.op is Op.IN)
