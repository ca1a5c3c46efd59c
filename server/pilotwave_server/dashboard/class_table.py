"""What classes of devices measured of a version's variants, and which of them each class gets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.figures import VariantFigures
from pilotwave_protocol.messages.facts import AGENT_HIDES
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.assignments.variants import Misfit, fitting, options_of
from pilotwave_server.rollouts.choice.classes import class_of
from pilotwave_server.rollouts.choice.decide import Voice, decide
from pilotwave_server.rollouts.choice.store import read_trials
from pilotwave_server.rollouts.choice.trial import OWN, voices_of

MOST = 50


@dataclass(frozen=True)
class ClassRow:
    """One variant in one class. `devices` measured it, of which it `failed` on some; the figures
    are medians over the others, None where there is none. `processor` says the class in words and
    `more` what else tells it from others; empty where no device is of it any more. `chosen` names
    the groups by whose policies the class gets it, measured there or not."""

    processor: str
    more: str
    variant: str
    p05_ms: float | None
    peak_mb: float | None
    devices: int
    failed: int
    chosen: tuple[str, ...]


def rows_of(session: Session, release: Released, snapshot: FleetSnapshot) -> list[ClassRow]:
    """Return what was measured of a version: of the classes of which the most devices did."""
    trials = read_trials(session, {release.sha256})
    voices = {of: voices_of(found) for (of, _), found in trials.items() if of[0] != OWN}
    most = sorted(voices, key=lambda of: (-len(voices[of]), of))[:MOST]
    facts = _facts(session, {v.device for of in most for v in voices[of]})
    rows: list[ClassRow] = []
    for of in most:
        own = (f for v in voices[of] if class_of(f := facts.get(v.device, {})) == of)
        rows += _of_class(next(own, {}), voices[of], release, snapshot)
    return rows


def _facts(session: Session, names: set[str]) -> Mapping[str, Mapping[str, Scalar]]:
    query = select(DeviceRow.name, DeviceRow.facts).where(DeviceRow.name.in_(names))
    return dict(session.execute(query).tuples().all())


def _of_class(
    facts: Mapping[str, Scalar],
    voices: Sequence[Voice],
    release: Released,
    snapshot: FleetSnapshot,
) -> Iterator[ClassRow]:
    chosen = _chosen(facts, voices, release, snapshot)
    for name in [v.name for v in release.variants]:
        said = [v.found[name] for v in voices if name in v.found]
        ran = [figures for figures in said if figures.failed is None]
        if said or name in chosen:
            yield ClassRow(
                processor=str(facts.get("cpu.model") or facts.get("arch") or "")[:80],
                more=_more(facts, release),
                variant=name,
                p05_ms=_middle(ran, "p05_ms"),
                peak_mb=_middle(ran, "peak_mb"),
                devices=len(said),
                failed=len(said) - len(ran),
                chosen=tuple(chosen.get(name, ())),
            )


def _more(facts: Mapping[str, Scalar], release: Released) -> str:
    runtimes = dict.fromkeys(v.runtime for v in release.variants)
    versions = [f"{r} {facts[key]}" for r in runtimes if (key := f"runtime.{r}") in facts]
    hides = [f"{AGENT_HIDES} {facts[AGENT_HIDES]}"] if AGENT_HIDES in facts else []
    arch = [str(facts["arch"])] if "arch" in facts else []
    return ", ".join([*arch, *versions, *hides])[:200]


def _middle(ran: Sequence[VariantFigures], name: str) -> float | None:
    found = [number for figures in ran if (number := figures.numbers.get(name)) is not None]
    return median(found) if found else None


def _chosen(
    facts: Mapping[str, Scalar],
    voices: Sequence[Voice],
    release: Released,
    snapshot: FleetSnapshot,
) -> dict[str, list[str]]:
    """Return what the class gets by each policy that chooses now, with the groups that have it."""
    fits = fitting(facts, release)
    if isinstance(fits, Misfit):
        return {}
    found: dict[str, list[str]] = defaultdict(list)
    only = voices[0].device if len(voices) == 1 else ""  # its voice counts for itself alone
    for group, choose in snapshot.chooses_of(release.model, release.version).items():
        choice = decide(only, options_of(fits, release), voices, choose)
        if choice.variant is not None:
            found[choice.variant].append(group)
    return found
