"""The application's side: use the current version of a model, and drop no call while it changes.

    from pilotwave_agent.live import LiveModel

    model = LiveModel("detector", data="/var/lib/pilotwave")
    answer = model.run({"x": image})       # a dict of outputs; answer.version says whose they are

It opens no network connection, needs no server and no running agent: it reads the data folder that
the agent keeps. Importing it imports neither numpy nor a runtime; the first load does.
"""

from __future__ import annotations

from pilotwave_agent.live.errors import LiveError, LoadFailed, NoVersion
from pilotwave_agent.live.generation import Answer, Version
from pilotwave_agent.live.model import LiveModel, Pinned

__all__ = ["Answer", "LiveError", "LiveModel", "LoadFailed", "NoVersion", "Pinned", "Version"]
