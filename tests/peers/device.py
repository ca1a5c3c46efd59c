"""A device enrolled at the registry, which works in the test's process when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.commands.enrol import EnrolOptions, enrol
from pilotwave_agent.core.journal import read_state
from pilotwave_agent.core.state import DeviceState, ModelSlot
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import Config, ProbeSettings
from pilotwave_agent.work import Done, Job, work
from tests.peers.registry import Registry


@dataclass
class Device:
    """An enrolled device that works in this process when a test says so."""

    registry: Registry
    config_path: Path
    config: Config

    @property
    def layout(self) -> Layout:
        return Layout(self.config.data_dir)

    @property
    def state(self) -> DeviceState:
        return read_state(self.layout.journal)

    def slot(self, model: str = "detector") -> ModelSlot:
        return self.state.slot(model)

    def set(self, **changes: Any) -> None:
        """Change settings."""
        self.config = replace(self.config, **changes)

    def deliver(self) -> None:
        """Put the registry's directive into the inbox."""
        disk = Disk()
        disk.make_dirs(self.layout.inbox.parent)
        disk.write_atomic(self.layout.inbox, self.registry.directive)

    def work(self, disk: Disk | None = None, **job: Any) -> Done:
        """Deliver and work, as the resident agent's child does."""
        self.deliver()
        return work(self.config, Job(**{"token": "token", **job}), disk=disk)

    def current(self, model: str = "detector") -> str:
        """Return the version folder that the link names."""
        return (self.layout.models / model / "current").readlink().name


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.stop()


@pytest.fixture
def device(registry: Registry, tmp_path: Path) -> Device:
    """A device without probation, its probe being a command that says yes."""
    return make_device(registry, tmp_path / "cam-1")


def make_device(registry: Registry, folder: Path) -> Device:
    root = folder.parent / "root.json"
    root.write_bytes(registry.root)
    path = folder / "agent.toml"
    wish = EnrolOptions(registry.url, folder.name, code="good", root_file=root)
    list(enrol(wish, path, folder))
    config = replace(
        settings.load(path),
        probation_s=0.0,
        keep_free_mb=0,
        probe=ProbeSettings("exec", ("true",), interval_s=0.1),
    )
    return Device(registry, path, config)
