"""The power goes at any moment of taking part: there is one update in the end, and it is the one
that the server may have."""

from __future__ import annotations

import random

import pytest

from tests.agent.learning.asking import AskingRegistry
from tests.agent.learning.test_take_part import ask_for_part, leave, part, sent
from tests.agent.learning.test_take_part import running as running
from tests.agent.medium import Medium, Tree
from tests.agent.powercut import lay_out, moved_to
from tests.agent.recorder import Recorder, without_locks
from tests.peers.device import Device

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
TRIED = 8


class Watched(Recorder):
    """Notes what a power cut may leave, and how many updates the server had by then."""

    def __init__(self, device: Device, registry: AskingRegistry) -> None:
        root = device.config.data_dir
        without_locks(root)
        self.states: dict[Tree, int] = {}
        self._registry = registry
        super().__init__(root, Medium.holding(root), self._look)

    def _look(self, medium: Medium) -> None:
        for newest in (True, False):
            for tree in medium.after_cut(2, newest=newest):
                self.states[tree] = len(self._registry.updates)


def test_whatever_a_power_cut_leaves_one_update_comes_of_it(
    running: Device, registry: AskingRegistry
) -> None:
    ask_for_part(running, registry)
    watched = Watched(running, registry)
    part(running, watched)
    watched.settle()
    (first,) = registry.updates
    root = running.config.data_dir
    for had in (0, 1):
        states = [tree for tree, updates in watched.states.items() if updates == had]
        assert len(states) >= 4, had
        for tree in random.Random(7).sample(states, min(TRIED, len(states))):
            lay_out(tree, root.with_name("left"))
            left = moved_to(running, root.with_name("left"))
            registry.updates = [first] * had
            for _ in range(2):
                leave(left, 5)
                part(left)
            assert len(set(registry.updates)) == 1, had
            assert sent(registry)[0].examples in (30, 35)
