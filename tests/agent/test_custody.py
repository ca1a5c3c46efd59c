"""A data folder that someone else could write to, or that leads elsewhere, is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.lock import held
from pilotwave_agent.identity import BadIdentity, load
from pilotwave_agent.permissions import BadCustody, check, check_settings
from pilotwave_agent.work import Job, work
from tests.agent.resident import run_agent
from tests.peers.device import Device
from tests.peers.registry import Registry, example

NOBODY = 65534


def planted(path: Path) -> Path:
    """Put a link to a folder or file outside in place of one of the agent's own."""
    outside = path.parent / f"outside-{path.name}"
    if path.is_dir():
        path.rename(outside)
    else:
        outside.write_bytes(path.read_bytes() if path.exists() else b"precious")
        path.unlink(missing_ok=True)
    path.symlink_to(outside)
    return outside


def seen(path: Path) -> object:
    return path.read_bytes() if path.is_file() else sorted(p.name for p in path.rglob("*"))


@pytest.fixture
def running(registry: Registry, device: Device) -> Device:
    """A device that runs a version."""
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    device.work(refresh=True)
    for folder in (device.layout.programs, device.layout.trial.parent):
        folder.mkdir(parents=True)
    return device


INSIDE = [
    "identity",
    "identity/device.key",
    "identity/root.json",
    "identity/seq.json",
    "journal",
    "journal/log",
    "inbox/directive.json",
    "tuf",
    "trust",
    "blobs",
    "models",
    "models/detector",
    "models/detector/versions",
    "models/detector/about",
    "models/pilotwave-agent/programs",
    "agent",
    "agent/trial.json",
    "live",
    "run.lock",
    "work.lock",
    "status.json",
]


def test_a_link_that_leads_elsewhere_is_refused_and_not_followed(running: Device) -> None:
    kept = running.layout.root.parent / "kept"
    running.layout.root.rename(kept)
    for name in INSIDE:
        shutil.rmtree(running.layout.root, ignore_errors=True)
        shutil.copytree(kept, running.layout.root, symlinks=True)
        outside = planted(running.layout.root / name)
        before = seen(outside)
        with pytest.raises(BadCustody, match=r"is a link to .*outside.*remove it"):
            work(running.config, Job(token="token", refresh=True, boot=True))
        assert seen(outside) == before, name


def test_the_data_folder_itself_may_be_named_by_a_link(running: Device, tmp_path: Path) -> None:
    name = tmp_path / "by-another-name"
    name.symlink_to(running.layout.root)
    check(Layout(name))


def test_a_link_in_a_version_s_place_is_not_taken_for_the_version(running: Device) -> None:
    path = running.layout.versions("detector") / running.current() / "model.onnx"
    outside = running.config_path.parent / "other.onnx"
    outside.write_bytes(path.read_bytes())
    path.parent.chmod(0o755)
    path.unlink()
    path.symlink_to(outside)
    running.work(boot=True)
    slot = running.slot()
    assert (slot.reason, slot.damaged) == ("blob_mismatch", True) or not path.is_symlink()


def test_what_every_user_may_write_to_is_refused(running: Device) -> None:
    for name in ("", "identity", "journal", "blobs", "models", "models/detector"):
        path = running.layout.root / name
        path.chmod(0o777)
        with pytest.raises(BadCustody, match=r"every user may write to it; run: chmod go-w /"):
            running.work()
        path.chmod(0o755)
    running.work()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
class TestOfOthers:
    def test_what_belongs_to_another_user_is_refused(self, running: Device) -> None:
        for name in (
            "",
            "journal",
            "models/detector/versions",
            "journal/log",
            "identity/device.key",
        ):
            os.chown(running.layout.root / name, NOBODY, NOBODY)
            with pytest.raises(BadCustody, match=r"belongs to user .*sudo -u"):
                running.work()
            os.chown(running.layout.root / name, 0, 0)

    def test_what_another_group_may_write_to_is_refused_but_for_the_applications_desks(
        self, running: Device
    ) -> None:
        root = running.layout.root
        for folder in (root / "live", root / "live/detector"):
            os.chown(folder, -1, NOBODY)
            folder.chmod(0o2775)
        check(running.layout)
        os.chown(root, -1, NOBODY)
        root.chmod(0o770)
        with pytest.raises(BadCustody, match=f"group {NOBODY} may write"):
            check(running.layout)


def test_a_key_that_others_may_read_is_refused(running: Device) -> None:
    running.layout.key.chmod(0o640)
    with pytest.raises(BadIdentity, match="others may read the device key; run: chmod 600"):
        load(running.layout)


def test_settings_that_others_may_write_are_refused(running: Device) -> None:
    running.config_path.chmod(0o666)
    with pytest.raises(BadCustody, match="every user may write to it"):
        check_settings(running.config_path)


def test_a_lock_does_not_write_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("here")
    (tmp_path / "run.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"), held(tmp_path / "run.lock", "it"):
        pass
    assert precious.read_text() == "here"


def _open_to_all(device: Device) -> None:
    device.layout.root.chmod(0o777)


def _open_settings(device: Device) -> None:
    device.config_path.chmod(0o666)


@pytest.mark.parametrize(
    ("spoil", "command"),
    [
        (_open_to_all, ("run",)),
        (_open_settings, ("once",)),
        (_open_to_all, ("rollback", "--model", "detector")),
    ],
)
def test_each_command_says_so_in_a_sentence(
    running: Device, spoil: Callable[[Device], None], command: tuple[str, ...]
) -> None:
    spoil(running)
    done = run_agent(*command, "--config", str(running.config_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pilotwave-agent: /")
    assert "every user may write to it; run: chmod go-w" in done.stderr
    assert running.current().startswith("1.0.0-")
