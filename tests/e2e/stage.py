"""The demo's stage, on which commands are forked: starting Python for each costs over a second."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from demo.stage import Stage
from tests import programs

ENTRIES = {
    "pilotwave": programs.CLI,
    "pilotwave-server": programs.SERVER,
    "pilotwave-agent": programs.AGENT,
}


class ForkedStage(Stage):
    """What stays (`start`) is a program of its own, as anywhere."""

    def end_of(self, program: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        given = {"environment": self.environment(), "folder": self.root}
        return programs.run(ENTRIES[program], words, **given)  # type: ignore[arg-type]  # one dict of both
