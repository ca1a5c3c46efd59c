"""A copied data folder gets an identity of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pilotwave_agent import identity
from pilotwave_agent.check_in.numbering import Sequence
from pilotwave_agent.commands.enrol import EnrolOptions, enrol
from pilotwave_agent.core.journal import Journal, read_state
from pilotwave_agent.core.records import noticed
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings import config
from pilotwave_agent.settings.config import BadConfig
from tests.peers.device import registry
from tests.peers.registry import Registry

__all__ = ["registry"]


def machine(tmp_path: Path, name: str) -> Path:
    """A stand-in for `/` of a machine with this id."""
    root = tmp_path / f"root-{name}"
    (root / "etc").mkdir(parents=True)
    (root / "etc/machine-id").write_text(f"{name}\n")
    return root


@pytest.fixture
def wish(registry: Registry, tmp_path: Path) -> EnrolOptions:
    (tmp_path / "root.json").write_bytes(registry.root)
    return EnrolOptions(registry.url, "cam-1", code="good", root_file=tmp_path / "root.json")


def joined(folder: Path, wish: EnrolOptions, machine: Path) -> str:
    """Enrol a folder; return its public key."""
    list(enrol(wish, folder / "agent.toml", folder, machine=machine))
    return identity.public_hex(identity.load(Layout(folder)).key)


def renamed(wish: EnrolOptions, **changes: object) -> EnrolOptions:
    return EnrolOptions(**{**vars(wish), "name": "cam-2", **changes})


def test_a_copy_on_another_machine_makes_a_new_key_and_keeps_its_memory(
    registry: Registry, wish: EnrolOptions, tmp_path: Path
) -> None:
    first, copy = tmp_path / "first", tmp_path / "copy"
    key = joined(first, wish, machine(tmp_path, "one"))
    Journal(Disk(), Layout(first).journal).append(noticed("tried", at=1.0))
    seq = Sequence(Disk(), Layout(first).seq)
    seq.take()
    with (first / "agent.toml").open("a") as settings:
        settings.write("probation_s = 7\n")
    shutil.copytree(first, copy)
    registry.device_key = None  # it takes a second device
    other = joined(copy, renamed(wish), machine(tmp_path, "two"))
    assert other != key
    found = config.load(copy / "agent.toml")
    assert (found.device, found.probation_s) == ("cam-2", 7.0)
    assert [e.kind for e in read_state(Layout(copy).journal).events] == ["tried"]
    assert Sequence(Disk(), Layout(copy).seq).name != seq.name
    assert joined(copy, renamed(wish), tmp_path / "root-two") == other


def test_a_copy_with_the_same_machine_id_is_told_by_hand(
    registry: Registry, wish: EnrolOptions, tmp_path: Path
) -> None:
    first, copy, here = tmp_path / "first", tmp_path / "copy", machine(tmp_path, "one")
    key = joined(first, wish, here)
    shutil.copytree(first, copy)
    assert joined(copy, wish, here) == key
    with pytest.raises(BadConfig, match="device is cam-1 there"):
        joined(copy, renamed(wish), here)
    registry.device_key = None
    assert joined(copy, renamed(wish, new_identity=True), here) != key


def test_a_machine_without_marks_is_no_copy(wish: EnrolOptions, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    key = joined(folder, wish, machine(tmp_path, "one"))
    assert joined(folder, wish, tmp_path / "nowhere") == key
