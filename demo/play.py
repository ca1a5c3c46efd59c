"""Play a story to its end on a stage of its own, and say how it ended."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from demo.account import Account, PromiseBroken
from demo.stage import CommandFailed, Stage


class Story(Protocol):
    """What is played."""

    def play(self) -> None:
        """Raise `PromiseBroken` or `CommandFailed` where it does not come out."""


def play(name: str, story: Callable[[Stage, Account], Story]) -> int:
    """Play it; return 0 if every promise was kept."""
    quick = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "1"}
    with tempfile.TemporaryDirectory(prefix="pilotwave-demo-") as folder:
        stage = Stage(Path(folder), settings=quick)
        try:
            story(stage, Account()).play()
        except (PromiseBroken, CommandFailed) as e:
            print(f"{name}: FAILED: {e}", flush=True)
            return 1
        finally:
            stage.close()
    print(f"{name}: ok", flush=True)
    return 0
