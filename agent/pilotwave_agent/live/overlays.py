"""Follow the link `overlay`: what this device adds to the scores of one version.

An overlay is used with the version and variant that it names, and with no other. A file that is not
what its name says is none, and costs no call: the version's own answer stands.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.links import OVERLAY, ModelLinks

if TYPE_CHECKING:
    from pilotwave_protocol.learning.overlaid import Overlaid


class Overlays:
    """The overlay of one model, read once for each that the link names."""

    def __init__(self, links: ModelLinks) -> None:
        self._links = links
        self._name: str | None = None
        self._found: Overlaid | None = None

    def of(self, version: Version) -> Overlaid | None:
        """Return what is to be added to this version's scores now."""
        name = self._links.named_by(OVERLAY)
        if name != self._name:
            self._name, self._found = name, self._read(name) if name else None
        found = self._found
        mine = found and found.about.is_for(version.model, version.sha256, version.variant)
        return found if mine else None

    def _read(self, name: str) -> Overlaid | None:
        from pilotwave_protocol.learning.overlaid import Overlaid  # only now: it takes numpy
        from pilotwave_protocol.learning.overlay import FOLDER, MAX_OVERLAY_BYTES

        path = self._links.folder / FOLDER / os.path.basename(name)
        with contextlib.suppress(Exception), path.open("rb") as file:
            return Overlaid.from_file(file.read(MAX_OVERLAY_BYTES + 1), path.name)
        return None
