"""Take part in training plans once, if the device may now.

python -m pilotwave_agent.take_part --config FILE    {"token", "parent"} on stdin
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pilotwave_agent import identity
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.host.scratch import use_scratch
from pilotwave_agent.learning.process import read_told
from pilotwave_agent.net.http import BadAnswer, Unreachable
from pilotwave_agent.net.server_api import ServerSaid, channel_of
from pilotwave_agent.rounds import waits
from pilotwave_agent.runtimes.confine import die_with_parent
from pilotwave_agent.settings import config as settings
from pilotwave_agent.take_part.answer_rounds import take_part
from pilotwave_agent.take_part.device import Device


def main() -> None:
    """Take part once, if the device may now."""
    told = read_told("pilotwave_agent.take_part")
    die_with_parent(told.parent)
    os.nice(19)
    config = settings.load(told.config)
    layout = Layout(config.data_dir)
    if not config.learn.allow or waits(config, time.time(), Path("/")):
        return
    use_scratch(config.data_dir)
    channel = channel_of(config)
    try:
        device = Device(config, layout, identity.load(layout), Disk(), channel, told.token)
        take_part(device)
    except (ServerSaid, Unreachable, BadAnswer, lock.Held) as e:
        say(f"learning waits: {e}", level="warning")
    finally:
        channel.close()


if __name__ == "__main__":
    main()
