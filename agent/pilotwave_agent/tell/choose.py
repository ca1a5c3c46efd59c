"""Make the tellers of a model from the settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pilotwave_agent.disk import Disk
from pilotwave_agent.tell.apps import Apps
from pilotwave_agent.tell.base import Teller
from pilotwave_agent.tell.deepstream import DeepStream
from pilotwave_agent.tell.program import Exec, Systemd
from pilotwave_agent.tell.settings import Tell
from pilotwave_agent.tell.triton import Triton
from pilotwave_agent.tell.versioned import Versioned
from pilotwave_agent.tell.web import Http


def tellers_of(tells: Iterable[Tell], model: str, disk: Disk, live: Path) -> list[Teller]:
    """Return who is told of a model's switch, in order; `live` is where applications' desks are."""
    return [_make(t, model, disk, live) for t in tells if not t.models or model in t.models]


def _make(tell: Tell, model: str, disk: Disk, live: Path) -> Teller:
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
            return Apps(tell, live)
