"""Take a model off the device: the application first, then the journal, then links and files.

The journal says that the model is gone before anything of it is, so that no later order meets half
of it: a power cut afterwards leaves files that the next start removes.
"""

from __future__ import annotations

from dataclasses import replace

from pilotwave_agent.core import records
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.effects.base import disk_says_no
from pilotwave_agent.effects.switch import Switching
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import ModelState


class Removing(Switching):
    """The effects that end a model here."""

    def _remove(self, slot: ModelSlot) -> None:
        note = self._tell_of_end(slot)
        self.record(
            records.removed(slot, at=self.now().wall, detail=f"an operator ordered it{note}")
        )

    def _tell_of_end(self, slot: ModelSlot) -> str:
        """Tell the application; what it minds, it says in a note: the order holds all the same."""
        if slot.current is None:
            return ""
        notes = []
        for teller in reversed(self._tellers(slot.model)):
            try:
                with disk_says_no():
                    release = self._release(slot, slot.current, ModelState.IDLE)
                    teller.remove(replace(release, state="removed"))
            except RefusedError as no:
                notes.append(f" (told so, {no.sentence})")
        return "".join(notes)

    def _clear_away(self, model: str) -> None:
        folder = self.layout.models / model
        with disk_says_no():
            for link in ("current", "previous"):
                if self.disk.read_link(folder / link) is not None:
                    self.disk.unlink(folder / link)
            if folder.is_dir():
                self.disk.sync_dir(folder)
                self.disk.remove_tree(folder)
                self.disk.sync_dir(folder.parent)
        self.record(records.cleared(model, at=self.now().wall))
