"""Follow what the agent wants tried beside the version that serves, in one process of a device.

The link `shadow` names a candidate. Of all processes that serve the model, the one that holds a
lock on the agent's file tries it, so that a trial takes what the device gives, whatever the number
of applications.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave_agent.hardware.board import memory_mb
from pilotwave_agent.live.capture import Capture
from pilotwave_agent.live.generation import Generation, Version
from pilotwave_agent.live.links import ModelLinks
from pilotwave_agent.live.loader import LoadOptions
from pilotwave_agent.live.recorder import Recorder
from pilotwave_agent.live.shadow_orders import Judges, Pair, ShadowOrders, read_orders
from pilotwave_protocol.shadow import SHADOW_FILE

if TYPE_CHECKING:
    from pilotwave_agent.live.shadow_trial import Trial

_LEAST_MEMORY_MB = 512


class Shadow:
    """One process's part in it. `called` is for any thread, the rest for the follower's."""

    def __init__(
        self,
        place: ModelLinks,
        options: LoadOptions,
        id: str,
        judges: Judges,
        capture: Capture,
    ) -> None:
        self._links, self._options, self._judges = place, options, judges
        self._capture = capture
        self._recorder = Recorder(place.desk, f"{id}-shadow")
        self._trial: Trial | None = None
        self._claim: int | None = None

    def called(
        self,
        generation: Generation,
        feeds: Mapping[str, Any],
        outputs: Mapping[str, Any],
        ms: float,
    ) -> None:
        """Let a call that was answered be tried, if it is one of the sample."""
        trial = self._trial
        if trial is not None and trial.pair.serving.name == generation.version.name:
            trial.offer(generation, feeds, outputs, ms)

    def follow(self, serving: Version | None) -> None:
        """Begin, end or go on with a trial, as the agent says now."""
        orders = read_orders(self._links) if serving else None
        pair = Pair(orders, serving) if orders and serving and orders.name != serving.name else None
        if pair is None or self._trial is None or self._trial.pair != pair:
            self._end_trial()
        if pair and self._claims(pair.orders):
            self._begin_trial(pair)
        else:
            self._end_trial()

    def _begin_trial(self, pair: Pair) -> None:
        from pilotwave_agent.live.shadow_trial import Trial  # only now: it takes numpy

        if self._trial is None:
            with contextlib.suppress(OSError, ValueError, TypeError):
                self._trial = Trial(
                    self._links,
                    pair,
                    self._options,
                    self._recorder,
                    self._judges,
                    self._capture,
                    _memory_mb(),
                )

    @property
    def said(self) -> dict[str, str] | None:
        """What the agent is told: which candidate is tried here, and what is wrong if anything."""
        trial = self._trial
        return (
            None if trial is None else {"name": trial.pair.orders.name, "sentence": trial.sentence}
        )

    def flush(self) -> None:
        """Put what has been counted where the agent finds it."""
        self._recorder.flush()

    def stop(self) -> None:
        """End what is tried."""
        trial = self._trial
        self._end_trial()
        if trial:
            trial.join(5.0)
        self._recorder.flush()

    def forget(self) -> None:
        """In a process that was forked: what is tried is the parent's."""
        if self._trial:
            self._trial.forget()
        if self._claim is not None:
            os.close(self._claim)  # the lock itself stays with the parent

    def _end_trial(self) -> None:
        if self._trial:
            self._trial.end()
        self._trial = None
        self._let_go()

    def _claims(self, orders: ShadowOrders) -> bool:
        """Say whether this process is the one that tries the candidate."""
        if self._claim is not None and os.fstat(self._claim).st_ino == orders.file:
            return True
        self._let_go()  # the agent has written the file anew
        with contextlib.suppress(OSError):
            path = self._links.desk / SHADOW_FILE
            self._claim = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._claim).st_ino == orders.file:
                return True
        self._let_go()
        return False

    def _let_go(self) -> None:
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None


def _memory_mb() -> int:
    """Return what the child may take: half of the machine's memory."""
    return max((memory_mb(Path("/")) or 0) // 2, _LEAST_MEMORY_MB)
