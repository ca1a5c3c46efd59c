"""Which devices were asked to measure variants for their class, and what they found: stored.

A device that was not asked has no row of a class, so that what it says of variants counts for
nothing. What fails on a device that is told to run it is kept under no class: for itself alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from pilotwave_protocol.figures import NUMBERS, VariantFigures
from pilotwave_server.db import insert_missing, touch_fleet
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.registry.tables import VersionRow
from pilotwave_server.rollouts.choice.trial import NO_CLASS, Trial, Trials, own_key
from pilotwave_server.rollouts.tables import VariantTrialRow


class Wish(NamedTuple):
    """A device that is to measure variants of a version for its class."""

    device_id: int
    class_of: str
    sha256: str
    variants: tuple[str, ...]


class Answer(NamedTuple):
    """What a device says that it measured, as the class that it is of now."""

    device_id: int
    class_of: str
    sha256: str
    variant: str
    figures: VariantFigures


class Failure(NamedTuple):
    """A variant whose self-test failed on a device that was told to run it, by the directive of
    that number."""

    device_id: int
    sha256: str
    variant: str
    reason: str
    directive_seq: int


def read_trials(session: Session, manifests: Collection[str]) -> Trials:
    """Return all trials of these manifests; of none, no statement."""
    if not manifests:
        return {}
    t = VariantTrialRow
    query = (
        select(DeviceRow.name, *t.__table__.c)
        .join(DeviceRow, DeviceRow.id == t.device_id)
        .where(t.sha256.in_(manifests))
        # from the next picture on, not what failed on the machine that had the name before
        .where(
            or_(
                t.class_of != NO_CLASS,
                DeviceRow.enrolled_at.is_(None),
                t.asked_at >= DeviceRow.enrolled_at,
            )
        )
        .order_by(t.measured_at, t.device_id, t.variant)
    )
    found: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for row in session.execute(query):
        figures = VariantFigures(**{n: getattr(row, n) for n in NUMBERS}, failed=row.failed)
        measured = figures if row.measured_at is not None else None
        trial = Trial(row.name, row.variant, row.asked_at, measured)
        found[row.class_of or own_key(row.name), row.sha256].append(trial)
    return {key: tuple(trials) for key, trials in found.items()}


def ask(session: Session, wishes: Iterable[Wish], *, now: datetime) -> None:
    """Note whom the server asks: their directives say so from the next picture on."""
    rows: list[dict[str, Any]] = [
        {
            "device_id": w.device_id,
            "sha256": w.sha256,
            "class_of": w.class_of,
            "variant": variant,
            "asked_at": now,
        }
        for w in wishes
        for variant in w.variants
    ]
    insert_missing(session, VariantTrialRow, rows)


def take(session: Session, answers: Iterable[Answer], *, now: datetime) -> bool:
    """Store the first answer of each device that was asked; say whether any was."""
    t, news = VariantTrialRow, False
    for answer in answers:
        numbers = {name: getattr(answer.figures, name) for name in NUMBERS}
        first = (
            update(t)
            .where(t.device_id == answer.device_id, t.sha256 == answer.sha256)
            .where(t.class_of == answer.class_of, t.variant == answer.variant)
            .where(t.measured_at.is_(None))
            .values(**numbers, failed=answer.figures.failed, measured_at=now)
        )
        done = session.execute(first, execution_options={"synchronize_session": False})
        news = news or bool(done.rowcount)  # type: ignore[attr-defined]  # of an update
    return news


def note_failures(session: Session, failures: Sequence[Failure], *, now: datetime) -> bool:
    """Keep what failed, unless an operator has let the device try again since; say whether any was
    new to keep."""
    if not failures:
        return False
    ids = [f.device_id for f in failures]
    query = select(DeviceRow.id, DeviceRow.revision).where(DeviceRow.id.in_(ids))
    revisions = dict(session.execute(query).tuples().all())
    t, rows = VariantTrialRow, list[dict[str, Any]]()
    for f in failures:
        if f.directive_seq < revisions.get(f.device_id, 0):
            continue
        key = {"device_id": f.device_id, "sha256": f.sha256, "variant": f.variant}
        before = t.class_of == NO_CLASS, *(getattr(t, name) == of for name, of in key.items())
        session.execute(delete(t).where(*before), execution_options={"synchronize_session": False})
        told = {"asked_at": now, "measured_at": now, "failed": f.reason}
        rows.append({**key, "class_of": NO_CLASS, **told})
    insert_missing(session, t, rows)
    return bool(rows)


def forget_own_failures(session: Session, device_ids: Collection[int], model: str) -> None:
    """Let devices try all variants of a model again. The caller holds the fleet's row."""
    t = VariantTrialRow
    mine = select(VersionRow.sha256).where(VersionRow.model == model)
    done = session.execute(
        delete(t).where(t.class_of == NO_CLASS, t.device_id.in_(device_ids), t.sha256.in_(mine)),
        execution_options={"synchronize_session": False},
    )
    if done.rowcount:  # type: ignore[attr-defined]  # of a delete
        touch_fleet(session)
