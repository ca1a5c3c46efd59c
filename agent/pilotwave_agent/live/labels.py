"""Keep labelled examples for the agent, where the device's owner allows learning.

The agent says by a file in the folder `live` that it may be done. An example is one file in
`live/<model>`: the inputs of a call as `input.NAME`, and the class as `label`, in safetensors,
whose metadata may name the label's `source`; an application in any language may write the same.
"""

from __future__ import annotations

import contextlib
import copy
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_agent.live.told import Told
from pilotwave_protocol.errors import BadName
from pilotwave_protocol.names import check_label_source

FILE = "learn.json"
ENDING = ".example"
LABEL_SOCKET = "label.sock"
INPUT, LABEL, SOURCE = "input.", "label", "source"
MAX_WAITING = 512
"""So many examples of a model wait for the agent; while it is away, no more are kept."""
_SCHEMA = "pilotwave/learn/1"


@dataclass(frozen=True)
class LabelRules:
    """What the agent tells applications: how large an example may be."""

    max_example_bytes: int

    def to_bytes(self) -> bytes:
        """Write the file."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}).encode() + b"\n"


def parse_rules(raw: bytes) -> LabelRules | None:
    """Read the file; None where it is of a later agent. Raises `ValueError`, `TypeError`."""
    found = json.loads(raw)
    if not isinstance(found, dict) or found.pop("schema", None) != _SCHEMA:
        return None
    return LabelRules(**found)


class Labels:
    """One process's labelled examples of one model. `folder` is `live/<model>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rules = Told(folder.parent / FILE, parse_rules)

    def copied(self, feeds: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return a call's inputs as they are now, where they may become an example."""
        if self._rules.current() is None:
            return None
        with contextlib.suppress(Exception):
            return {name: copy.copy(value) for name, value in feeds.items()}
        return None

    def keep(self, inputs: Mapping[str, Any], label: int, source: str = "") -> bool:
        """Write one example; False where the owner allows none, or there is no room. Raises
        `ValueError` for a source that is no name."""
        try:
            about = {SOURCE: check_label_source(source)} if source else None
        except BadName as e:
            raise ValueError(str(e)) from e
        return self._rules.current() is not None and not self.leave(_packed(inputs, label, about))

    def leave(self, raw: bytes) -> str:
        """Leave an example as it is written; return why it was not kept, nothing: it was."""
        rules = self._rules.current()
        if rules is None:
            return "the owner of this device allows no learning"
        if len(raw) > rules.max_example_bytes:
            return f"expected an example of at most {rules.max_example_bytes} bytes; got {len(raw)}"
        try:
            with SharedFolder(self._folder) as folder:
                if len(folder.names(ENDING, MAX_WAITING)) >= MAX_WAITING:
                    return f"{MAX_WAITING} examples wait for the agent; send it again later"
                folder.replace(f"{time.time_ns()}-{secrets.token_hex(4)}{ENDING}", raw)
        except OSError as e:
            return f"it cannot be stored: {e.strerror or e}"
        return ""


def _packed(inputs: Mapping[str, Any], label: int, about: Mapping[str, str] | None) -> bytes:
    import numpy as np

    from pilotwave_agent.runtimes.casefile import as_safetensors

    arrays = {f"{INPUT}{name}": np.asarray(value) for name, value in inputs.items()}
    return as_safetensors({**arrays, LABEL: np.array([label], np.int64)}, about=about)
