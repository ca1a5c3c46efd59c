"""The server as a service: what is written, what systemd thinks of it, what is left afterwards.

No test touches this machine's system: everything lies below a root of its own.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilotwave_server.cli import app
from pilotwave_server.service_commands import SERVICE, install_on, own_command
from pilotwave_server.systemd_unit import Plan, unit_of
from pilotwave_systemd.install import ServiceTrouble, System
from pilotwave_systemd.unit import CannotInstall, unit_text

DATA = Path("/var/lib/pilotwave-server")
SERVER = own_command()
NAME, UNIT, WANTS, SYSUSERS = SERVICE.name, SERVICE.unit, SERVICE.wants, SERVICE.sysusers


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


def put(root: Path, plan: Plan | None = None) -> list[str]:
    return list(install_on(System.at(root), plan or Plan(SERVER, DATA)))


def test_an_image_gets_a_unit_a_user_and_a_link(tmp_path: Path) -> None:
    lines = put(tmp_path)
    assert files(tmp_path) == {str(UNIT), str(WANTS), str(SYSUSERS)}
    assert (tmp_path / WANTS).resolve() == tmp_path / UNIT
    unit = (tmp_path / UNIT).read_text()
    assert f"run --data {DATA} --host 127.0.0.1 --port 8600\n" in unit
    assert "StateDirectory=pilotwave-server\n" in unit
    assert "CapabilityBoundingSet=\n" in unit
    assert any("starts when this system does" in line for line in lines)


def test_installing_again_changes_nothing_and_uninstalling_leaves_nothing(tmp_path: Path) -> None:
    put(tmp_path)
    unit = (tmp_path / UNIT).read_bytes()
    put(tmp_path)
    assert (tmp_path / UNIT).read_bytes() == unit
    assert len(list(SERVICE.uninstall(System.at(tmp_path)))) == 3
    assert files(tmp_path) == set()
    assert list(SERVICE.uninstall(System.at(tmp_path))) == []


def test_a_unit_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / UNIT
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/bin/true\n")
    for tried in (lambda: put(tmp_path), lambda: list(SERVICE.uninstall(System.at(tmp_path)))):
        with pytest.raises(ServiceTrouble, match="someone else wrote"):
            tried()
    assert "bin/true" in path.read_text()


def test_a_running_system_is_told_in_order(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    told: list[Sequence[str]] = []
    system = System(tmp_path, told.append)
    said = "\n".join(install_on(system, Plan(SERVER, DATA, "pw-nobody-here")))
    assert f"init --data {DATA} --fleet NAME" in said
    list(SERVICE.uninstall(system))
    assert [" ".join(c) for c in told] == [
        f"systemd-sysusers {tmp_path}/{SYSUSERS}",
        "systemctl daemon-reload",
        f"systemctl enable {NAME}",
        f"systemctl disable --now {NAME}",
        "systemctl daemon-reload",
    ]


def test_https_takes_its_files_from_root_and_its_port_by_one_right() -> None:
    cert, key = Path("/etc/tls/a b.pem"), Path("/etc/k.pem")
    unit = unit_text(unit_of(Plan(SERVER, DATA, port=443, tls_cert=cert, tls_key=key)))
    assert "LoadCredential=tls-cert:/etc/tls/a b.pem\n" in unit
    assert "--port 443 --tls-cert %d/tls-cert --tls-key %d/tls-key\n" in unit
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in unit


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(["server"], DATA), "absolute"),
        (Plan(SERVER, Path("data")), "absolute"),
        (Plan(SERVER, Path("/var/lib/a\nUser=root")), "no unit can name"),
        (Plan(SERVER, DATA, tls_cert=Path("/c.pem")), "go together"),
    ],
)
def test_what_no_unit_can_say_is_refused(plan: Plan, words: str) -> None:
    with pytest.raises(CannotInstall, match=words):
        unit_text(unit_of(plan))


def test_a_name_cannot_smuggle_a_line(tmp_path: Path) -> None:
    with pytest.raises(CannotInstall, match="expected a name like"):
        put(tmp_path, Plan(SERVER, DATA, "a\nUser=root"))
    unit = unit_text(unit_of(Plan(SERVER, Path("/srv/my models/50%"))))
    assert '--data "/srv/my models/50%%"' in unit
    assert 'ReadWritePaths="/srv/my models/50%%"' in unit


def test_the_commands_print_what_they_did(tmp_path: Path) -> None:
    def run(*words: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, [*words])
        assert done.exit_code == status, done.output
        return done.output

    for flag in ("--print", "--dry-run"):
        assert "[Service]" in run("install", flag, "--root", str(tmp_path))
    assert files(tmp_path) == set()
    assert f"wrote /{UNIT}" in run("install", "--root", str(tmp_path))
    assert f"removed /{UNIT}" in run("uninstall", "--root", str(tmp_path))
    assert "absolute" in run("install", "--data", "x", "--root", str(tmp_path), status=2)


needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="this system has no systemd-analyze"
)
WITH_TLS = Plan(SERVER, DATA, port=443, tls_cert=Path("/etc/c.pem"), tls_key=Path("/etc/k.pem"))


@needs_analyze
@pytest.mark.parametrize("plan", [Plan(SERVER, DATA), WITH_TLS, Plan(SERVER, Path("/srv/a b"))])
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path, plan: Plan) -> None:
    put(tmp_path, plan)
    words = ["verify", "--man=no", "--recursive-errors=no", str(tmp_path / UNIT)]
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if NAME in line]
    assert (done.returncode, ours) == (0, [])


@needs_analyze
def test_systemd_calls_the_unit_well_hardened(tmp_path: Path) -> None:
    put(tmp_path)
    words = ["security", "--offline=yes", "--no-pager", str(tmp_path / UNIT)]
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= 2.0, done.stdout  # 10 is worst; a plain service has 9.6


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_hears_when_it_takes_connections_and_that_it_lives(
    tmp_path: Path, workers: str
) -> None:
    data, address = tmp_path / "data", str(tmp_path / "notify")
    made = CliRunner().invoke(app, ["init", "--data", str(data), "--fleet", "x"])
    assert made.exit_code == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(address)
        ears.settimeout(60)
        told = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "INVOCATION_ID": "x"}
        server = subprocess.Popen(
            [*SERVER, "run", "--data", str(data), "--port", "0", "--workers", workers],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **told},
        )
        try:
            assert ears.recv(100) == b"READY=1"
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            host, _, port = url.removeprefix("http://").partition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
            assert [ears.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            server.send_signal(signal.SIGSTOP)
            while ears in select.select([ears], [], [], 2)[0]:  # what was on its way
                ears.recv(100)
            server.send_signal(signal.SIGCONT)
            assert ears.recv(100) == b"WATCHDOG=1"
        finally:
            server.terminate()
            server.communicate(timeout=60)
