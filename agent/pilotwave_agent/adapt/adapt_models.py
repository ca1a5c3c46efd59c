"""Adapt each model for which a signed plan and the device's owner allow it; judge what is in use.

    1 what may not be used any more goes (`overlays.review`)
    2 a child as the self-test's answers the labelled examples, and fits a head to the older ones
    3 an overlay in use that later labels show to be worse goes; its examples count no more
    4 a head that passes all that the plan asks becomes the overlay (`learning.judge`)

No network is asked for. The process may be killed at any moment.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timezone

from pilotwave_agent import overlays
from pilotwave_agent.adapt.compute_head import Head, compute_head
from pilotwave_agent.core.journal import read_state
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.learning.judge import HeadFigures, faults
from pilotwave_agent.overlays import Adapting, Work
from pilotwave_agent.settings.config import Config
from pilotwave_agent.version_folder import build_of
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.learning.overlay import Overlay
from pilotwave_protocol.learning.paired import shown

LOCK_WAIT_S = 60.0


def adapt_models(config: Config, layout: Layout, disk: Disk, *, may: bool) -> None:
    """Do what there is to do; unless the device `may` compute now, only let go. Raises `Held`,
    `OSError`."""
    wall = time.time()
    with lock.held(layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
        state = read_state(layout.journal)
        overlays.review(config, disk, layout, state, wall)
    if not (may and config.learn.allow and config.learn.adapt):
        return
    now = datetime.fromtimestamp(wall, timezone.utc)
    for model, slot in state.models.items():
        work = overlays.work_for(disk, layout, slot, now)
        if work is not None:
            Attempt(config, layout, disk, model, work, now).make()


class Attempt:
    """One model's turn."""

    def __init__(
        self,
        config: Config,
        layout: Layout,
        disk: Disk,
        model: str,
        work: Work,
        now: datetime,
    ) -> None:
        self._config, self._layout, self._disk = config, layout, disk
        self._model, self._work, self._now = model, work, now

    def make(self) -> None:
        """Compute, and decide by what came of it. May raise `Held`, `OSError`."""
        work, layout = self._work, self._layout
        variant = build_of(self._disk, layout, work.version).variant
        try:
            found = compute_head(self._config, layout, self._disk, self._model, work, variant)
        except (PilotwaveError, KeyError, TypeError) as no:  # it said what no child says
            found = Head(sentence=f"the child failed: {no}")
        with lock.held(layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
            if self._is_still_so():
                max_ms = variant.selftest.max_latency_ms if variant.selftest else None
                self._decide(found, None if max_ms is None else float(max_ms))

    def _is_still_so(self) -> bool:
        """Say whether nothing has changed meanwhile that the work was based on."""
        disk, layout, state = self._disk, self._layout, read_state(self._layout.journal)
        why = overlays.reason_to_go(
            self._config, disk, layout, state, self._model, self._work.state, time.time()
        )
        before = overlays.read(disk, layout, self._model)
        return not why and (before is None or _is_as_before(before, self._work.state))

    def _decide(self, found: Head, max_ms: float | None) -> None:
        disk, layout, model, newest = self._disk, self._layout, self._model, self._work.newest
        state = replace(self._work.state, judged=newest)
        if state.overlay and found.judged.shows_worse:
            pairs = found.judged
            why = f"later labels: {pairs.worse} are right without it alone, {pairs.better} with it"
            state = replace(state, after=newest, until=newest, tries=state.tries + 1)
            overlays.drop(disk, layout, model, state, why)
            return
        if not self._work.refit:
            overlays.decide(disk, layout, model, state)
            return
        state = replace(state, until=newest, tries=state.tries + 1)
        why = found.sentence or _why_not(found.figures, self._work, state.tries, max_ms)
        if why or found.figures is None:
            overlays.decide(disk, layout, model, replace(state, detail=why))
            say(f"{model}: not adapted: {why}")
            return
        raw = self._overlay(found.figures, found.numbers, state)
        state = replace(state, overlay=sha256_hex(raw), trained=newest, detail="")
        overlays.install(disk, layout, model, raw, state)
        gain = shown(found.figures.gain(state.tries))
        say(f"{model}: adapted to this device: right at least {gain} more often on held-out labels")

    def _overlay(self, figures: HeadFigures, numbers: bytes, state: Adapting) -> bytes:
        plan, pairs = self._work.plan, figures.held_out
        about = Overlay(
            model=self._model,
            version=self._work.version.version,
            sha256=state.base,
            variant=state.variant,
            plan=state.plan,
            embedding=plan.embedding,
            scores=plan.scores,
            features=plan.features,
            classes=plan.classes,
            clip=plan.clip,
            distance=f"{figures.distance:.4g}",
            since=self._now,
            examples=figures.examples,
            held_out=pairs.rows,
            better=pairs.better,
            worse=pairs.worse,
            gain=shown(figures.gain(state.tries)),
            numbers=sha256_hex(numbers),
        )
        return about.to_file(numbers)


def _is_as_before(found: Adapting, then: Adapting) -> bool:
    """Say whether nobody decided anything meanwhile, or it was about another plan or version."""
    if (found.plan, found.base, found.variant) != (then.plan, then.base, then.variant):
        return True
    return (found.overlay, found.tries, found.detail) == (then.overlay, then.tries, then.detail)


def _why_not(figures: HeadFigures | None, work: Work, tries: int, max_ms: float | None) -> str:
    if figures is None:
        return "the child made no head"
    return "; ".join(faults(figures, work.plan, tries=tries, max_ms=max_ms))
