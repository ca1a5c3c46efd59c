"""Adapt models to this device once, if it may now.

python -m pilotwave_agent.adapt --config FILE    {"token", "parent"} on stdin
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pilotwave_agent.adapt.adapt_models import adapt_models
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.host.scratch import use_scratch
from pilotwave_agent.learning.process import read_told
from pilotwave_agent.rounds import waits
from pilotwave_agent.runtimes.confine import die_with_parent
from pilotwave_agent.settings import config as settings


def main() -> None:
    """Let go of what may not be used any more; adapt, if the device may now."""
    told = read_told("pilotwave_agent.adapt")
    die_with_parent(told.parent)
    os.nice(19)
    config = settings.load(told.config)
    use_scratch(config.data_dir)
    may = not waits(config, time.time(), Path("/"), sends=False)
    try:
        adapt_models(config, Layout(config.data_dir), Disk(), may=may)
    except (OSError, lock.Held) as e:
        say(f"adapting waits: {e}", level="warning")


if __name__ == "__main__":
    main()
