"""The trace that a rollout belongs to: its own, or that of its version's publication."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from pilotwave_protocol.tracing import TraceContext, parse_traceparent
from pilotwave_server.registry.tables import VersionRow
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.tracing import Tracing


def published_in(session: Session, model: str, version: str) -> str | None:
    """Return the `traceparent` of a version's publication."""
    v = VersionRow
    query = select(v.traceparent).where(v.model == model, v.version == version)
    return session.scalar(query)


def traces_of(session: Session, rows: Sequence[RolloutRow]) -> dict[int, TraceContext]:
    """By number, the contexts of the rollouts that belong to a trace."""
    v = VersionRow
    named = {(row.model, row.version) for row in rows}
    if not named:
        return {}
    query = select(v.model, v.version, v.traceparent).where(v.traceparent.is_not(None))
    theirs = query.where(tuple_(v.model, v.version).in_([*named]))
    published = {(model, version): own for model, version, own in session.execute(theirs)}
    found = {}
    for row in rows:
        known = row.traceparent or published.get((row.model, row.version))
        if (context := parse_traceparent(known)) is not None:
            found[row.id] = context
    return found


def wave_of(trace: TraceContext, row: RolloutRow) -> TraceContext:
    """Return the context of the open wave. Each process can tell it, whichever opened the wave."""
    return trace.child(f"r{row.id} wave {row.wave}")


def note_wave(tracing: Tracing, session: Session, row: RolloutRow) -> None:
    """Send the span of a wave that was just opened."""
    trace = traces_of(session, [row]).get(row.id) if tracing.spans else None
    if trace is None or tracing.spans is None:
        return
    now = time.time()
    tracing.spans.record(
        "open wave",
        trace,
        start=now,
        end=now,
        attributes={
            "pilotwave.rollout": f"r{row.id}",
            "pilotwave.wave": row.wave,
            "pilotwave.model": row.model,
            "pilotwave.version": row.version,
        },
        itself=wave_of(trace, row),
    )
