"""Read the journal when it has changed, and tell of what came about, as the server is told."""

from __future__ import annotations

import os
from pathlib import Path

from pilotwave_agent.core.journal import read_state
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.host.log import say
from pilotwave_protocol.messages.check_in import DeviceEvent


class JournalWatch:
    """The journal as another process writes it; `last` is its state when it was last read."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp, self.last = path, _stamp(path), DeviceState()
        if self.exists:
            self.last = read_state(path)

    @property
    def exists(self) -> bool:
        """Whether there was a journal when it was last looked at."""
        return self._stamp is not None

    def has_changed(self) -> bool:
        """Say whether the file is another than the one that was read."""
        return _stamp(self._path) != self._stamp

    def state(self) -> DeviceState:
        """Return the journal's state; the file is read again only when it has changed."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            before = self.last.next_event
            self.last, self._stamp = read_state(self._path), stamp
            for event in self.last.events:
                if event.id >= before:
                    _say_event(event)
        return self.last


_WORDS = {
    "shadowing": "is tried in shadow beside the version that serves",
    "shadow_ended": "is in shadow no more",
}


def _say_event(event: DeviceEvent) -> None:
    """Tell of what came about, as the server is told."""
    what = " ".join(filter(None, (event.model, event.version))) or "device"
    why = ": ".join(filter(None, (event.reason, event.detail)))
    words = _WORDS.get(event.kind, event.kind.replace("_", " "))
    say(
        f"{what}: {words}{f' ({why})' if why else ''}",
        level="warning" if event.reason else "info",
        event=event.kind,
        model=event.model,
        version=event.version,
        reason=event.reason,
    )


def _stamp(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
