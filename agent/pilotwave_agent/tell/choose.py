"""Make the tellers of a model from the settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pilotwave_agent.apps.heartbeats import Users
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell.apps import Apps
from pilotwave_agent.tell.base import Teller
from pilotwave_agent.tell.deepstream import DeepStream
from pilotwave_agent.tell.program import Exec, Systemd
from pilotwave_agent.tell.triton import Triton
from pilotwave_agent.tell.versioned import Versioned
from pilotwave_agent.tell.web import Http


def tellers_of(
    tells: Iterable[Tell], model: str, disk: Disk, live: Path, users: Users | None = None
) -> list[Teller]:
    """Return who is told of a model's switch, in order; `live` is where applications' heartbeat
    files are, `users` say who may speak at them."""
    told = [t for t in tells if not t.models or model in t.models]
    return [_make(t, model, disk, live, users or {}) for t in told]


def _make(tell: Tell, model: str, disk: Disk, live: Path, users: Users) -> Teller:
    match tell.kind:
        case "exec":
            return Exec(tell)
        case "systemd":
            return Systemd(tell)
        case "http":
            return Http(tell)
        case "triton":
            return Triton(tell, disk, model)
        case "openvino" | "tensorflow":
            return Versioned(tell, disk, model)
        case "deepstream":
            return DeepStream(tell)
        case _:
            return Apps(tell, live, users.get(model))
