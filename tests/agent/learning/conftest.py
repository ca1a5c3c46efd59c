"""A registry that asks a device to take part in training plans, and the device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent.learning.asking import AskingRegistry
from tests.peers.device import device

__all__ = ["device"]


@pytest.fixture
def registry() -> Iterator[AskingRegistry]:
    made = AskingRegistry()
    yield made
    made.stop()
