"""A device that runs 1.0.0, and what every attack on it must end in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.work import Done
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState, Reason
from tests.peers.device import Device
from tests.peers.registry import Registry

_BEFORE_THE_SWITCH = (ModelState.FETCHING, ModelState.VERIFYING, ModelState.STAGED)


@dataclass
class Victim:
    """A device on 1.0.0 of `detector`; 1.1.0 is published, ready to be ordered."""

    registry: Registry
    device: Device
    old: Entry
    new: Entry

    def served(self) -> dict[str, bytes]:
        """Return what an application finds under `current`, the version's folder name first."""
        folder = (self.device.layout.models / "detector" / "current").resolve()
        files = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
        return {"": folder.name.encode(), **files}

    def works(self) -> None:
        """Deliver what the registry orders, and have the device do it."""
        self.device.work(refresh=True)

    def runs(self, model: str = "detector") -> str | None:
        """Return the version of a model that runs, if one does."""
        link = self.device.layout.models / model / "current"
        return link.readlink().name.partition("-")[0] if link.is_symlink() else None

    def refuses(self, reason: Reason, work: bool = True) -> Done | None:
        """See the device say no for exactly this reason, tell it, and stay on what it runs."""
        before, known = self.served(), self.device.state
        done = self.device.work(refresh=True) if work else None
        state = self.device.state
        news = [e for e in state.events if e.id >= known.next_event and e.reason]
        assert [e.reason for e in news] == [reason], (news, done)
        assert all(e.detail and len(e.detail) > 15 for e in news), news
        assert self.served() == before
        slot = state.slot("detector")
        assert (slot.current, slot.last_healthy) == (known.slot("detector").current,) * 2
        assert slot.state in (*_BEFORE_THE_SWITCH, ModelState.HEALTHY)
        return done

    def recovers(self) -> None:
        """See the device take an honest order afterwards."""
        self.registry.bend = lambda path, reply: reply
        self.registry.order(self.new)
        self.device.work(refresh=True)
        assert self.device.current().startswith("1.1.0-"), self.device.state
        assert self.device.slot().state is ModelState.HEALTHY

    @property
    def outside(self) -> set[Path]:
        """Return every path beside the device's own folder, where nothing may appear."""
        home = self.device.config_path.parent
        return {p for p in home.parent.rglob("*") if home not in (p, *p.parents)}
