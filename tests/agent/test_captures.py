"""Captured cases at the agent: taken over whole, within the owner's budget, shown and forgotten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent import identity, permissions
from pilotwave_agent.captures import Captures, forget, kept, tell_applications
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.identity import Identity
from pilotwave_agent.live.capture_rules import CaptureRules, parse_rules
from pilotwave_agent.settings.capture import CaptureSettings
from pilotwave_agent.settings.config import BadConfig, parse
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.case import Case, join_case, parse_case, split_case
from tests.agent.medium import Medium
from tests.agent.mortal import Dies
from tests.agent.recorder import Recorder
from tests.agent.resident import run_agent
from tests.peers.device import Device

READER = "5f" * 32
WALL = time.time()
AT = datetime(2030, 1, 1, tzinfo=timezone.utc)
OWN = {"server": "http://127.0.0.1", "device": "cam-1", "data_dir": "."}


class Desk:
    """A device whose owner wants cases, and an application that leaves them."""

    def __init__(self, device: Device, **settings: Any) -> None:
        wanted = {"reader": READER, "reasons": ("low_score", "uniform"), **settings}
        device.set(capture=CaptureSettings(**wanted), metered=False)
        self.device, self.layout = device, device.layout
        self.who: Identity = identity.load(device.layout)
        self.folder = device.layout.live / "detector"
        self.folder.mkdir(parents=True, exist_ok=True)

    def case(self, sealed: bytes, **changes: Any) -> bytes:
        case = Case(
            fleet=self.who.fleet,
            device=self.who.device,
            public_key=dsse.raw_public(self.who.key.public_key()).hex(),
            reader=READER,
            model="detector",
            version="1.0.0",
            variant="onnx",
            reason="uniform",
            at=AT,
            id=sha256_hex(sealed),
        )
        return join_case(replace(case, **changes).to_bytes(), sealed)

    def leave(self, sealed: bytes, **changes: Any) -> None:
        (self.folder / f"{sha256_hex(sealed)}.case").write_bytes(self.case(sealed, **changes))

    def captures(self, disk: Disk | None = None) -> Captures:
        return Captures(self.device.config, self.who, disk or Disk())

    def names(self) -> list[str]:
        return sorted(os.listdir(self.layout.captures))


@pytest.fixture
def desk(device: Device) -> Desk:
    return Desk(device)


def test_what_applications_leave_is_taken_over(desk: Desk) -> None:
    desk.leave(b"sealed")
    desk.captures().collect(WALL)
    assert os.listdir(desk.folder) == []
    (found,) = kept(Disk(), desk.layout)
    assert (found.case.model, found.case.reason, found.case.at) == ("detector", "uniform", AT)
    assert found.path.parent == desk.layout.captures


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cam-9"},
        {"fleet": "other"},
        {"public_key": "ab" * 32},
        {"reader": "ab" * 32},  # sealed for somebody whom the owner does not name
        {"reason": "overruled"},  # not wanted
        {"model": "ocr"},  # of another folder
        {"id": "ab" * 32},
    ],
)
def test_what_the_owner_did_not_want_is_removed(desk: Desk, changes: dict[str, Any]) -> None:
    desk.leave(b"sealed", **changes)
    (desk.folder / "noise.case").write_bytes(os.urandom(100))
    (desk.folder / "link.case").symlink_to(desk.layout.key)
    os.mkfifo(desk.folder / "pipe.case")
    desk.captures().collect(WALL)
    assert (desk.names(), os.listdir(desk.folder)) == ([], [])


def test_the_oldest_go_where_there_are_too_many_and_the_old_in_any_case(device: Device) -> None:
    desk = Desk(device, max_mb=1, keep_days=7)
    captures = desk.captures()
    for n in range(40):
        sealed = bytes([n]) * 100_000
        desk.leave(sealed)
        captures.collect(WALL)
        path = desk.layout.captures / f"{sha256_hex(sealed)}.case"
        os.utime(path, (WALL - 1000 + n, WALL - 1000 + n))
    captures.collect(WALL + 50)
    found = list(kept(Disk(), desk.layout))
    assert sum(k.size for k in found) <= 1 << 20
    newest = [sha256_hex(bytes([n]) * 100_000) for n in range(40 - len(found), 40)]
    assert [k.case.id for k in found] == newest
    captures.collect(WALL + 8 * 86_400)
    assert desk.names() == []


def test_a_disk_without_room_leaves_them_with_the_application(device: Device) -> None:
    desk = Desk(device)
    device.set(keep_free_mb=1 << 40)
    desk.leave(b"sealed")
    desk.captures().collect(WALL)
    assert (desk.names(), len(os.listdir(desk.folder))) == ([], 1)


def test_wherever_the_agent_is_killed_each_case_is_there_once(desk: Desk) -> None:
    root = desk.device.config.data_dir
    sealed = [os.urandom(300) for _ in range(3)]
    for dies_at in range(1, 200):
        forget(Disk(), desk.layout, None)
        for one in sealed:
            desk.leave(one)

        left = iter(range(dies_at))

        def die(medium: Medium, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Dies

        try:
            desk.captures(Recorder(root, Medium.holding(root), die)).collect(WALL)
        except Dies:
            _all_whole(desk.layout.captures)
            desk.captures().collect(WALL)
            assert desk.names() == sorted(f"{sha256_hex(s)}.case" for s in sealed), dies_at
        else:
            assert dies_at > 10
            return
    raise AssertionError("it never came to its end")


def _all_whole(folder: Path) -> None:
    for path in folder.glob("[!.]*.case"):
        parse_case(*split_case(path.read_bytes()))


def test_no_power_cut_leaves_half_a_case(desk: Desk) -> None:
    root, seen = desk.device.config.data_dir, set()
    for n in range(2):
        desk.leave(bytes([n]) * 50)

    def look(medium: Medium) -> None:
        for tree in medium.after_cut(2):
            for name, left in tree:
                if name.startswith("captures/") and name.endswith(".case") and "/." not in name:
                    assert isinstance(left, tuple)
                    seen.add(name)
                    parse_case(*split_case(left[0]))

    disk = Recorder(root, Medium.holding(root), look)
    desk.captures(disk).collect(WALL)
    disk.settle()
    assert len(seen) == 2


# --- what the owner says and sees


def test_applications_are_told_the_rules_and_nothing_once_they_are_withdrawn(desk: Desk) -> None:
    device, disk = desk.device, Disk()
    tell_applications(device.config, desk.layout, desk.who, disk)
    rules = parse_rules(desk.layout.capture_rules.read_bytes())
    assert rules == CaptureRules(
        fleet=desk.who.fleet,
        device=desk.who.device,
        public_key=dsse.raw_public(desk.who.key.public_key()).hex(),
        reader=READER,
        reasons=("low_score", "uniform"),
        below=0.5,
        share=0.001,
        max_case_bytes=1 << 20,
        max_bytes=64 << 20,
        max_bytes_per_day=16 << 20,
    )
    permissions.check(desk.layout)
    desk.leave(b"one")
    desk.captures().collect(WALL)
    desk.leave(b"two")
    device.set(capture=CaptureSettings())
    tell_applications(device.config, desk.layout, desk.who, disk)
    assert not desk.layout.capture_rules.exists()
    assert list(kept(disk, desk.layout)) == []


def test_the_owner_sees_what_waits_and_forgets_it(desk: Desk) -> None:
    config = desk.device.config_path
    with config.open("a") as file:
        file.write(f'[capture]\nreader = "{READER}"\nreasons = ["uniform"]\n')
    for n in range(3):
        desk.leave(bytes([n]) * 50)
    desk.captures().collect(WALL)
    ids = [k.case.id for k in kept(Disk(), desk.layout)]
    said = run_agent("captures", "list", "--config", str(config))
    assert said.returncode == 0, said.stderr
    assert f"captured: uniform; sealed for {READER}" in said.stdout
    assert (
        f"{ids[0][:12]}  2030-01-01T00:00:00Z  uniform  detector 1.0.0 (onnx)  1 KiB" in said.stdout
    )
    assert "3 wait for the server" in said.stdout
    rows = json.loads(run_agent("captures", "list", "--json", "--config", str(config)).stdout)
    assert [row["id"] for row in rows] == ids
    words = ("captures", "forget", "--config", str(config))
    assert run_agent(*words).returncode == 1  # which?
    assert "none of these waits" in run_agent(*words, "--id", "ffffffffffff").stderr
    assert run_agent(*words, "--id", ids[1][:12]).stdout == "forgot 1\n"
    assert [k.case.id for k in kept(Disk(), desk.layout)] == [ids[0], ids[2]]
    assert run_agent(*words, "--all").stdout == "forgot 2\n"
    assert desk.names() == []


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"reader": READER},
            "reader and reasons together; reasons are low_score, drift, overruled, "
            "shadow_disagreement, uniform",
        ),
        ({"reasons": ["uniform"]}, "reader and reasons together"),
        (
            {"reader": READER, "reasons": ["curiosity"]},
            "one of low_score, drift, overruled, shadow_disagreement, uniform",
        ),
        ({"reader": READER, "reasons": ["uniform"], "hold_hours": 168}, "less than keep_days"),
        ({"reader": READER[1:], "reasons": ["uniform"]}, "pilotwave keys reader"),
        ({"reader": READER, "reasons": ["uniform"], "share": 1.1}, "share"),
    ],
)
def test_settings_without_a_meaning_are_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        parse({**OWN, "capture": section}, base=Path("/"))
