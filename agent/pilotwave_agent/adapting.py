"""Adapting models to this device, as far as the resident agent is concerned: fetch the plans that
publishers stand by, and start the process that adapts (`adapt`) when there is something for it.

Nothing is done without `[learn] adapt = true`. Nothing of it is sent, and once a plan is here, no
server is needed.
"""

from __future__ import annotations

import contextlib
import time
from datetime import datetime, timezone
from pathlib import Path

from pilotwave_agent import overlays
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.learning import signed_plans
from pilotwave_agent.learning.process import LearnProcess
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import BadAnswer, Channel, Unreachable
from pilotwave_agent.net.server_api import ServerSaid
from pilotwave_agent.rounds import waits
from pilotwave_agent.settings.config import Config

_AGAIN_S = 3600.0


class Adapter:
    """One device's adapting. `config_path` is what the process is started with."""

    def __init__(self, config: Config, config_path: Path, disk: Disk) -> None:
        self._config, self._disk = config, disk
        self._layout = Layout(config.data_dir)
        self._process = LearnProcess("pilotwave_agent.adapt", config_path)
        self._not_before: dict[str, float] = {}

    def fetch_plans(self, channel: Channel, token: str) -> None:
        """Ask for plans that hold and are not here. One that the server does not have, or answers
        wrongly, is asked for again after an hour."""
        now = time.monotonic()
        for digest in signed_plans.missing(self._disk, self._layout):
            if now < self._not_before.get(digest, 0.0):
                continue
            self._not_before[digest] = now + _AGAIN_S
            with contextlib.suppress(OSError, ServerSaid, BadAnswer, Unreachable):
                raw = server_api.read_plan(channel, token, digest)
                signed_plans.keep(self._disk, self._layout, digest, raw)

    def look(self, state: DeviceState, *, wall: float, root: Path) -> None:
        """Start the process, if there is something to let go of, or something to do and the device
        may now."""
        if self._process.runs:
            return
        if self._must_let_go(state, wall) or (
            self._has_work(state, wall) and not waits(self._config, wall, root, sends=False)
        ):
            self._process.start()

    def _must_let_go(self, state: DeviceState, wall: float) -> bool:
        config, disk, layout = self._config, self._disk, self._layout
        for name in disk.names(layout.all_adapting):
            model = name.removesuffix(".json")
            found = overlays.read(disk, layout, model)
            in_use = found if found and found.overlay else None
            if in_use and overlays.reason_to_go(config, disk, layout, state, model, in_use, wall):
                return True
        return False

    def _has_work(self, state: DeviceState, wall: float) -> bool:
        now = datetime.fromtimestamp(wall, timezone.utc)
        return any(
            overlays.work_for(self._disk, self._layout, slot, now) is not None
            for slot in state.models.values()
        )

    def close(self) -> None:
        """End the process; it begins anew the next time."""
        self._process.close()
