"""What the agent tells applications of a candidate: a link beside `current`, and one small file.

The link is the agent's alone. The file lies where applications may write too, so it counts only
where it is of the link's owner and names what the link names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.links import ModelLinks
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.shadow import SHADOW, SHADOW_FILE, SHADOW_SCHEMA, Shadow, read_shadow

Compare = Callable[[Mapping[str, Any], Mapping[str, Any]], object]
"""An application's own comparison: of the serving version's outputs and the candidate's, whether
they agree."""
Score = Callable[[Mapping[str, Any]], float]
"""How good an application finds a version's outputs to be; more is better."""
_MAX_BYTES = 64 << 10


@dataclass(frozen=True)
class Judges:
    """What an application judges of a pair's answers by itself, if anything."""

    compare: Compare | None = None
    score: Score | None = None

    def __bool__(self) -> bool:
        return self.compare is not None or self.score is not None


@dataclass(frozen=True)
class ShadowOrders:
    """A candidate's folder, and which share of the inputs and of a core its trial may take. `file`
    tells one file from a later one that says the same."""

    name: str
    terms: Shadow
    file: int = field(compare=False)


@dataclass(frozen=True)
class Pair:
    """What is tried against what."""

    orders: ShadowOrders
    serving: Version


def read_orders(place: ModelLinks) -> ShadowOrders | None:
    """Return what is to be tried now; None for nothing, and for what makes no sense."""
    name = place.named_by(SHADOW)
    if name is None:
        return None
    try:
        owner = os.lstat(place.folder / SHADOW).st_uid
        with SharedFolder(place.desk) as folder:
            found, said = folder.stat(SHADOW_FILE), folder.read(SHADOW_FILE, _MAX_BYTES)
        if found is None or said is None or said[1] not in (owner, 0):
            return None
        words = json.loads(said[0])
        if words.get("schema") != SHADOW_SCHEMA or words.get("name") != name:
            return None
        return ShadowOrders(name, read_shadow(words), found.st_ino)
    except (OSError, ProtocolError, ValueError, AttributeError, RecursionError):
        return None
