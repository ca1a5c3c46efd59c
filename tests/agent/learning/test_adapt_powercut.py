"""A power cut while a device adapts a version: whatever a medium may have kept of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_agent import overlays
from pilotwave_agent.host.disk import Disk
from tests.agent.learning.asking import AskingRegistry
from tests.agent.learning.test_adapt import adapt, label, linked, running, sign
from tests.agent.powercut import Run, lay_out, moved_to, some
from tests.peers.device import Device

__all__ = ["running"]
pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
_TRIED = 60


def test_whatever_a_cut_leaves_is_the_overlay_before_the_next_or_none(
    running: Device, registry: AskingRegistry, tmp_path: Path
) -> None:
    """Of an overlay that takes the place of another, and of one that goes."""
    sign(running, registry)
    label(running, 90, 2)
    adapt(running)
    first = linked(running)
    label(running, 90, 5)
    run = Run(running.layout.root)
    adapt(running, run)
    second = linked(running)
    assert second not in ("", first)
    running.set(learn=replace(running.config.learn, adapt=False))
    overlays.review(running.config, run, running.layout, running.state, time.time())
    assert linked(running) == ""
    run.finish()
    assert run.broken_promises() == []
    met = set()
    for n, tree in enumerate(some(run.states, max(len(run.states) // _TRIED, 1))):
        root = tmp_path / f"left-{n}" / running.layout.root.name
        lay_out(tree, root)
        left = moved_to(running, root)
        for allowed in (True, False):
            # as the next start of the agent does
            left.set(learn=replace(left.config.learn, adapt=allowed))
            overlays.review(left.config, Disk(), left.layout, left.state, time.time())
            name = linked(left)
            met.add(name)
            assert name in ({"", first, second} if allowed else {""})
            found = overlays.in_use(Disk(), left.layout, "detector")
            assert (found.digest if found else "") == name.removesuffix(".overlay")
            assert Disk().names(left.layout.overlays("detector")) == [n for n in (name,) if n]
    assert met == {"", first, second}
