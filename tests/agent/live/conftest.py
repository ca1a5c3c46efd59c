"""Applications on the shelf of a test, which end with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pilotwave_agent.live import LiveModel
from tests.peers.shelf import Shelf

SOON_S = 60.0


@pytest.fixture
def opened(shelf: Shelf) -> Iterator[Callable[..., LiveModel]]:
    made: list[LiveModel] = []

    def open_(**given: Any) -> LiveModel:
        given = {"app": "test", "wait_s": SOON_S, "heartbeat_s": 0.2, **given}
        made.append(LiveModel("detector", data=shelf.data, **given))
        return made[-1]

    yield open_
    for model in made:
        model.close()
