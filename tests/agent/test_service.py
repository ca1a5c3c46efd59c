"""The agent as a service: what is written, what systemd thinks of it, what is left afterwards.

No test touches this machine's system: everything lies below a root of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pilotwave_agent.cli import run_command
from pilotwave_agent.commands.service import (
    SERVICE,
    install,
    own_command,
    own_launcher,
    uninstall,
)
from pilotwave_agent.commands.systemd_unit import Plan, unit_of
from pilotwave_protocol.states import ModelState
from pilotwave_systemd.install import ServiceTrouble, System
from pilotwave_systemd.unit import CannotInstall, unit_text
from tests.peers.device import Device
from tests.peers.registry import Registry, example

DATA = Path("/var/lib/pilotwave")
CONFIG = DATA / "agent.toml"
NAME, UNIT, WANTS = SERVICE.name, SERVICE.unit, SERVICE.wants
AGENT = own_command()
LAUNCHER = own_launcher()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with an enrolled device's data folder."""
    made = tmp_path / "root"
    folder = made / DATA.relative_to("/")
    (folder / "identity").mkdir(parents=True)
    words = 'server = "https://pilotwave.example"\ndevice = "cam-1"\ndata_dir = "."\n'
    (folder / "agent.toml").write_text(words)
    (made / "etc").mkdir()
    (made / "etc/group").write_text("root:x:0:\nvideo:x:44:\nrender:x:105:\n")
    return made


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


def put(root: Path, **more: object) -> list[str]:
    system = more.pop("system", System.at(root))
    assert isinstance(system, System)
    return list(install(system, CONFIG, user="pilotwave", command=AGENT, **more))  # type: ignore[arg-type]


def test_an_image_gets_a_unit_a_user_and_a_link(root: Path) -> None:
    before = files(root)
    lines = put(root)
    assert files(root) - before == {
        str(UNIT),
        str(WANTS),
        "etc/sysusers.d/pilotwave-agent.conf",
    }
    assert (root / WANTS).resolve() == root / UNIT
    unit = (root / UNIT).read_text()
    assert f"run --config {CONFIG}" in unit
    assert "StateDirectory=pilotwave" in unit
    assert "SupplementaryGroups=video render" in unit
    assert any("starts when this system does" in line for line in lines)


def test_an_image_in_which_nobody_enrolled_gets_the_same_unit(root: Path) -> None:
    put(root)
    enrolled = (root / UNIT).read_text()
    (root / UNIT).unlink()
    (root / DATA.relative_to("/") / "agent.toml").unlink()
    put(root)
    assert (root / UNIT).read_text() == enrolled


def test_installing_again_changes_nothing_and_uninstalling_leaves_nothing(root: Path) -> None:
    before = files(root)
    put(root)
    unit = (root / UNIT).read_bytes()
    put(root)
    assert (root / UNIT).read_bytes() == unit
    gone = list(uninstall(System.at(root)))
    assert len(gone) == 3
    assert files(root) == before
    assert list(uninstall(System.at(root))) == []


def test_the_device_s_memory_goes_only_when_it_is_asked_to(root: Path) -> None:
    put(root)
    list(uninstall(System.at(root)))
    assert (root / "var/lib/pilotwave/agent.toml").exists()
    list(uninstall(System.at(root), purge=DATA))
    assert not (root / "var/lib/pilotwave").exists()
    with pytest.raises(ServiceTrouble, match="no data folder of an agent"):
        list(uninstall(System.at(root), purge=Path("/etc")))
    assert (root / "etc/group").exists()


def test_a_unit_of_someone_else_is_left_alone(root: Path) -> None:
    path = root / UNIT
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/bin/true\n")
    for tried in (lambda: put(root), lambda: list(uninstall(System.at(root)))):
        with pytest.raises(ServiceTrouble, match="someone else wrote"):
            tried()
    assert "bin/true" in path.read_text()


def test_a_running_system_is_told_in_order(root: Path) -> None:
    (root / "run/systemd/system").mkdir(parents=True)
    told: list[Sequence[str]] = []
    system = System(root, told.append)
    list(install(system, CONFIG, user="pw-nobody-here", command=AGENT))
    list(uninstall(system))
    assert [" ".join(c) for c in told] == [
        f"systemd-sysusers {root}/etc/sysusers.d/pilotwave-agent.conf",
        "systemctl daemon-reload",
        f"systemctl enable {NAME}",
        f"systemctl restart {NAME}",
        f"systemctl disable --now {NAME}",
        "systemctl daemon-reload",
    ]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(["agent"], LAUNCHER, DATA, CONFIG), "absolute"),
        (Plan(AGENT, LAUNCHER, Path("data"), CONFIG), "absolute"),
        (Plan(AGENT, LAUNCHER, Path("/var/lib/a\nUser=root"), CONFIG), "no unit can name"),
    ],
)
def test_a_path_that_no_unit_can_name_is_refused(plan: Plan, words: str) -> None:
    with pytest.raises(CannotInstall, match=words):
        unit_text(unit_of(plan))


def test_a_path_with_blanks_and_signs_is_quoted() -> None:
    plan = Plan(AGENT, LAUNCHER, Path("/srv/my models/50%"), Path("/srv/my models/50%/agent.toml"))
    unit = unit_text(unit_of(plan))
    assert '--config "/srv/my models/50%%/agent.toml"' in unit
    assert 'ReadWritePaths="/srv/my models/50%%"' in unit


def test_a_user_s_name_cannot_smuggle_a_line(root: Path) -> None:
    with pytest.raises(CannotInstall, match="expected a name like"):
        list(install(System.at(root), CONFIG, user="a\nUser=root", command=AGENT))


def test_the_commands_print_what_they_did(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--config", str(CONFIG), "--root", str(root)]
    before = files(root)
    assert run_command(["install", "--print", *place]) == 0
    assert "[Service]" in capsys.readouterr().out
    assert files(root) == before
    assert run_command(["install", *place]) == 0
    assert f"wrote /{UNIT}" in capsys.readouterr().out
    assert run_command(["uninstall", "--root", str(root)]) == 0
    assert f"removed /{UNIT}" in capsys.readouterr().out
    (root / CONFIG.relative_to("/")).write_text("server = 1\n")
    assert run_command(["install", *place]) == 2
    assert "server: expected" in capsys.readouterr().err


needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="this system has no systemd-analyze"
)


@needs_analyze
def test_systemd_finds_no_fault_with_the_unit(root: Path) -> None:
    put(root)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(root / UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if NAME in line]
    assert (done.returncode, ours) == (0, [])


@needs_analyze
def test_systemd_calls_the_unit_well_hardened(root: Path) -> None:
    put(root)
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(root / UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= 2.5, done.stdout  # 10 is worst; a plain service has 9.6


# --- the process that the unit starts


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def test_systemd_hears_that_it_is_ready_alive_and_ending(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(address)
        ears.settimeout(30)
        agent = subprocess.Popen(
            [*AGENT, "run", "--config", str(device.config_path)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000", INVOCATION_ID="x"),
        )
        try:
            heard, ends = [ears.recv(100).decode()], time.monotonic() + 60
            while all(e.kind != "switched" for e in list(registry.events.values())):
                assert time.monotonic() < ends, device.slot()
                heard.append(ears.recv(100).decode())
        finally:
            agent.send_signal(signal.SIGTERM)
            said = agent.communicate(timeout=30)[1]
        while "STOPPING=1" not in heard:
            heard.append(ears.recv(100).decode())
    assert heard[0] == "READY=1"
    assert heard.count("WATCHDOG=1") >= 3
    lines = [json.loads(line) for line in said.splitlines()]
    assert {"at", "level", "message"} <= set(lines[0])
    assert [x["version"] for x in lines if x.get("event") == "switched"] == ["1.0.0"]


def test_people_read_lines(registry: Registry, device: Device) -> None:
    agent = subprocess.Popen(
        [*AGENT, "run", "--config", str(device.config_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PILOTWAVE_LOG="text"),
    )
    assert agent.stderr
    first = agent.stderr.readline()
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=30)
    assert first.startswith("cam-1 of fleet acme, server http://127.0.0.1")


def test_one_folder_is_all_that_is_written_to(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    """The whole system is read-only but the data folder: neither /tmp nor a home is there."""
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    written = device.config_path.read_text()
    device.config_path.write_text(f"probation_s = 1\n{written}")
    data = device.config.data_dir
    cage = (
        'set -e; mount --make-rprivate /; mount --bind "$1" "$1"; mount -o remount,bind,ro /; '
        'cd /; ! touch /tmp/x 2>/dev/null; shift; exec "$@"'
    )
    tool = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount"]
    if subprocess.run([*tool, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this kernel lets nobody make a mount namespace here")
    command = [*tool, "sh", "-c", cage, "cage", str(data), *AGENT, "once"]
    done = subprocess.run(
        [*command, "--config", str(device.config_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
    )
    assert done.returncode == 0, done.stderr
    assert device.slot().state is ModelState.HEALTHY
    assert device.current().startswith("1.0.0-")
